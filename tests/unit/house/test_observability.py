"""conf/prometheus and conf/grafana: files that their programs can read, and alerts that fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.observability_files import DASHBOARDS, GRAFANA, PROMETHEUS, dashboard_expressions, rules
from tests.support.paths import ROOT


def promtool(*arguments: str) -> str:
    """What it said of files that it takes."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool; Debian's package prometheus has it")
    done = subprocess.run([program, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.program
def test_prometheus_takes_the_configuration() -> None:
    assert "is valid" in promtool("check", "config", "prometheus.yml")


@pytest.mark.program
def test_the_alerts_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "tests.yml")


@pytest.mark.program
def test_prometheus_takes_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    filled = [expression.replace("$instance", ".*") for expression in dashboard_expressions()]
    recorded = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(filled)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))
    assert f"SUCCESS: {len(recorded)} rules found" in promtool("check", "rules", str(file))


def test_every_alert_says_what_it_means() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert (ROOT / rule["annotations"]["runbook"]).is_file(), rule["alert"]
        assert rule["alert"] in (ROOT / rule["annotations"]["runbook"]).read_text(), "the page says by what it is found"
        assert rule["for"]


def test_every_alert_fires_in_its_tests() -> None:
    tests = yaml.safe_load((PROMETHEUS / "tests.yml").read_text())["tests"]
    fired = {asked["alertname"] for test in tests for asked in test["alert_rule_test"] if asked.get("exp_alerts")}
    assert {rule["alert"] for rule in rules()} == fired


def test_no_rule_lets_one_cluster_hide_another() -> None:
    """What adds up several nodes says of which cluster; all else is about one instance."""
    for rule in rules():
        grouped = re.findall(r"\b(?:sum|min|max|group|count|avg)\b(?: by \(([^)]*)\))?\s*\(", rule["expr"])
        for labels in grouped:
            names = {name.strip() for name in labels.split(",")}
            assert "job" in names, (rule["alert"], labels)
            assert names & {"instance", "cluster_id"}, (rule["alert"], labels)


def test_every_node_is_scraped() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    services = yaml.safe_load((PROMETHEUS.parents[1] / "docker-compose.yml").read_text())["services"]
    nodes = sorted(name for name in services if name.startswith("meta"))
    scraped = [target.partition(":")[0] for config in job["static_configs"] for target in config["targets"]]
    scraped += [name for config in job["dns_sd_configs"] for name in config["names"]]
    assert sorted(scraped) == nodes
    assert job["metrics_path"] == "/v1/metrics"


def test_grafana_finds_the_dashboards_and_their_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/metasrv.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/metasrv.yml").read_text())["providers"]
    service = yaml.safe_load((GRAFANA.parents[1] / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./conf/grafana/dashboards:{provider['options']['path']}:ro" in service["volumes"]
    assert source["type"] == "prometheus"
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        (variable,) = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
        assert variable["current"]["value"] == source["uid"]
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
        assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
        assert all(panel["title"] and panel["targets"] for panel in dashboard["panels"])


def test_panels_do_not_overlap() -> None:
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells
