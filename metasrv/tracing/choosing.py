"""The tracer that the configuration asks for, if it asks for one: only then is OpenTelemetry loaded.

Runs once, while the node is built.
"""

from __future__ import annotations

from metasrv.config.sections import TracingConfig
from metasrv.model.errors import ConfigError
from metasrv.tracing.watch import Tracer


def tracer_of(config: TracingConfig, *, node_id: int, version: str, cluster_name: str) -> Tracer | None:
    """None where no endpoint is set. Raises ConfigError where the library is not installed."""
    if not config.otlp_endpoint:
        return None
    try:
        from metasrv.tracing.spans import make_tracer
    except ImportError as error:
        raise ConfigError(
            [f"`tracing.otlp_endpoint`: OpenTelemetry cannot be loaded ({error}); install `metasrv[otel]`"]
        ) from error
    return make_tracer(
        config.otlp_endpoint, config.sample_ratio, node_id=node_id, version=version, cluster_name=cluster_name
    )
