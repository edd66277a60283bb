"""Sections of the configuration without secrets, and what the models of all sections share.

Types and ranges only, as in `model.py`, which puts the sections together. Pure; runs anywhere.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from metasrv.config.levels import parse_levels
from metasrv.model.limits import MIB

MASK = "***"
SIZE_BYTES_MAX = 2**63 - 1
BACKUP_EVERY_SECONDS_MAX = 366 * 24 * 3600


class ConfigModel(BaseModel):
    """What all parts of a configuration share: immutable, no unknown keys, no guessing of types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class LogFileConfig(ConfigModel):
    """`[log.file]`: log files, one per hour, the oldest removed."""

    on: bool = Field(default=True, description="Write log files.")
    level: str = Field(default="Warn,metasrv=Info", description="Level, or levels by name: `Warn,metasrv.raft=Debug`.")
    dir: str = Field(default="./.databend/logs", description="Directory of the log files.", min_length=1)
    format: Literal["json", "text"] = Field(default="json", description="One JSON object per line, or plain text.")
    limit: int = Field(default=48, ge=1, le=1_000_000, description="Number of log files to keep.")
    max_size: int = Field(
        default=4 * 1024 * MIB,
        ge=4096,
        le=SIZE_BYTES_MAX,
        description="Size in bytes at which a new log file is started within the hour.",
    )

    _level = field_validator("level")(lambda text: _checked_levels(text))


class LogStderrConfig(ConfigModel):
    """`[log.stderr]`: log lines on standard error."""

    on: bool = Field(default=False, description="Write log lines to standard error.")
    level: str = Field(default="Warn,metasrv=Info", description="Level, or levels by name.")
    format: Literal["json", "text"] = Field(default="text", description="One JSON object per line, or plain text.")

    _level = field_validator("level")(lambda text: _checked_levels(text))


class LogConfig(ConfigModel):
    """`[log]`."""

    file: LogFileConfig = LogFileConfig()
    stderr: LogStderrConfig = LogStderrConfig()


class TracingConfig(ConfigModel):
    """`[tracing]`: spans of requests for OpenTelemetry; needs `metasrv[otel]`."""

    otlp_endpoint: str = Field(
        default="", description="URL that spans are sent to, such as `http://collector:4318/v1/traces`; empty for none."
    )
    sample_ratio: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="Share of the requests to trace of those whose client has not decided it by its `traceparent`.",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _url(cls, endpoint: str) -> str:
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise ValueError("it must begin with `http://` or `https://`")
        return endpoint


def _checked_levels(text: str) -> str:
    parse_levels(text)
    return text


class BackupConfig(ConfigModel):
    """`[backup]`: archives that the leader makes by itself, in a directory or a bucket."""

    every_seconds: int = Field(
        default=0, ge=0, le=BACKUP_EVERY_SECONDS_MAX, description="Seconds between backups of the cluster; 0 for none."
    )
    keep: int = Field(default=24, ge=1, le=1_000_000, description="Number of archives of this cluster to keep.")
    directory: str = Field(
        default="", description="Directory of the archives, which has to exist; the same, shared one on all nodes."
    )
    bucket: str = Field(default="", description="S3-compatible bucket of the archives, instead of a directory.")
    endpoint: str = Field(default="", description="URL of the bucket's server; empty for that of AWS.")
    region: str = Field(default="", description="Region of the bucket; empty for that of the environment.")
    prefix: str = Field(default="", description="What the names of the archives in the bucket begin with.")
    credentials_file: str = Field(
        default="",
        description="File with the bucket's credentials, in the form of ~/.aws/credentials; empty: the environment.",
    )
    without_secrets: bool = Field(
        default=False, description="Leave the key that signs tokens, and users with their passwords, out of the archives."
    )
    encrypt_with: str = Field(
        default="", description="File with the key that the archives are encrypted with: 32 bytes, or a passphrase."
    )
