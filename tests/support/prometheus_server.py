"""A real Prometheus that scrapes nodes of a test, with the alert rules of conf/ made quick.

The rules are those of conf/prometheus/rules.yml, sixty times faster: what is five minutes there is five seconds here.
Uses Debian's program; the caller skips where there is none. Used from one event loop; only its start and end block it.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from metasrv.cli.node_process import fetch
from metasrv.testing.ports import PortReservation
from tests.support.observability_files import PROMETHEUS

PROGRAM = shutil.which("prometheus")
WHY_NOT = None if PROGRAM else "there is no prometheus; Debian's package of that name has it"
SCRAPE_INTERVAL = "500ms"
TIMES_FASTER = 60
WINDOW_SECONDS_MIN = 3.0
"""Shorter ones would hold too few samples."""
START_SECONDS_MAX = 30.0
_UNITS = {"s": 1, "m": 60, "h": 3600}


def quicker(duration: str, at_least_seconds: float = 0.0) -> str:
    """`5m` as `5000ms`."""
    seconds = int(duration[:-1]) * _UNITS[duration[-1]] / TIMES_FASTER
    return f"{round(1000 * max(seconds, at_least_seconds))}ms"


def quick_rules(changes: Mapping[str, str]) -> dict[str, Any]:
    """The rules of conf/, with shorter waits and windows, and with `changes` of their expressions."""
    rules: dict[str, Any] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = quicker(rule["for"])
            rule["expr"] = re.sub(
                r"\[(\d+[smh])\]", lambda found: f"[{quicker(found[1], WINDOW_SECONDS_MIN)}]", rule["expr"]
            )
            for old, new in changes.items():
                rule["expr"] = rule["expr"].replace(old, new)
    return rules


class PrometheusServer:
    """`async with PrometheusServer(directory, targets) as prometheus:`; `targets` are `host:port` of admin APIs."""

    def __init__(self, directory: Path, targets: Iterable[str], changes: Mapping[str, str] | None = None) -> None:
        self._directory = directory / "prometheus"
        self._ports = PortReservation()
        self.port = self._ports.take()
        self._directory.mkdir()
        (self._directory / "rules.yml").write_text(json.dumps(quick_rules(changes or {})))
        (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
        del job["dns_sd_configs"], job["relabel_configs"]
        job["static_configs"] = [{"targets": list(targets)}]
        intervals = {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL}
        configuration = {
            "global": {**intervals, "evaluation_interval": SCRAPE_INTERVAL},
            "rule_files": ["rules.yml"],
            "scrape_configs": [job],
        }
        (self._directory / "prometheus.yml").write_text(json.dumps(configuration))
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [
                    str(PROGRAM),
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not await self._is_ready():
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, (self._directory / "log").read_text()
            await asyncio.sleep(0.1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._ports.release()

    async def _is_ready(self) -> bool:
        try:
            code, _ = await asyncio.to_thread(fetch, f"http://127.0.0.1:{self.port}/-/ready", 1.0)
        except OSError:
            return False
        return code == 200

    async def _ask(self, path: str) -> Any:
        code, body = await asyncio.to_thread(fetch, f"http://127.0.0.1:{self.port}/api/v1/{path}", 5.0)
        assert code == 200, body
        return json.loads(body)["data"]

    async def alerts(self) -> set[tuple[str, str]]:
        """Each alert that is pending or firing: its name, and the instance or the cluster that it is about."""
        found = (await self._ask("alerts"))["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance") or alert["labels"].get("cluster_name") or "")
            for alert in found
        }

    async def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        found = (await self._ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    async def names(self) -> set[str]:
        """Every metric that was scraped."""
        return set(await self._ask("label/__name__/values"))

    async def value(self, expression: str) -> float | None:
        """The newest value of an expression with one result, None without one."""
        found = (await self._ask("query?" + urllib.parse.urlencode({"query": expression})))["result"]
        return float(found[0]["value"][1]) if found else None

    async def targets_up(self) -> int:
        return int(await self.value('sum(up{job="metasrv"})') or 0)
