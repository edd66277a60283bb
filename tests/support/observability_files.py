"""What conf/prometheus and conf/grafana hold, for the tests that look at it."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.support.paths import CONF

PROMETHEUS = CONF / "prometheus"
GRAFANA = CONF / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
_METRIC = re.compile(r"\b(?:metasrv|process|python)_[a-z0-9_]+\b")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    """The expressions of every panel and annotation."""
    found = []
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        found += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        found += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    return found


def metric_names() -> set[str]:
    """Every metric of metasrv that a rule, a panel or a variable names."""
    texts = [rule["expr"] for rule in rules()] + dashboard_expressions()
    for path in DASHBOARDS:
        variables = json.loads(path.read_text())["templating"]["list"]
        texts += [variable["query"] for variable in variables if variable["type"] == "query"]
    return {name for text in texts for name in _METRIC.findall(text)}
