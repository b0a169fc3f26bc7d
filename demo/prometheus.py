"""A real Prometheus and a real Alertmanager, as Debian has them, with the product's rules, scrape and routes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
import yaml

from demo.process import Process, free_port
from demo.wait import wait_for

DASHBOARDS = Path(__file__).parents[1] / "dashboards"
RULES = DASHBOARDS / "out" / "*.rules.yaml"
PROVISIONING = DASHBOARDS / "provisioning"
INSTALL = "apt-get install prometheus prometheus-alertmanager"


def find(*programs: str) -> str | None:
    """Return the first of these programs that is installed."""
    return next(filter(None, map(shutil.which, programs)), None)


def why_prometheus_cannot_run() -> str | None:
    """Return the reason why there can be none on this machine, and what to do; None when there can."""
    there = find("prometheus") and find("prometheus-alertmanager", "alertmanager")
    return None if there else f"Prometheus and Alertmanager are not both installed ({INSTALL})"


def configuration(
    given: Mapping[str, Any], *, edge: str, alertmanager: str, others: Mapping[str, str], rules: Path, interval: str
) -> dict[str, Any]:
    """Return the configuration of the stack in containers, for processes on loopback ports: ``host:port`` each.

    ``others`` are further targets, by the name of their job. The Edge API needs no token from its own host.
    """
    (job,) = (dict(job) for job in given["scrape_configs"])
    del job["authorization"]
    job["static_configs"] = [{"targets": [edge]}]
    more = [{"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in others.items()]
    return {
        **given,
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(rules)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [job, *more],
    }


class Alertmanager:
    """One Alertmanager with the files of its own in a folder; ``stop`` ends it."""

    def __init__(self, folder: Path, logs: Path, config: Path = PROVISIONING / "alertmanager.yml") -> None:
        self.address = f"127.0.0.1:{free_port()}"
        command = [find("prometheus-alertmanager", "alertmanager") or "alertmanager", f"--config.file={config}"]
        command += [f"--storage.path={folder / 'alertmanager'}", f"--web.listen-address={self.address}"]
        # No cluster: it would listen on every interface.
        self.process = Process("Alertmanager", [*command, "--cluster.listen-address="], log=logs / "alertmanager.log")
        _wait_ready(self)

    @property
    def url(self) -> str:
        """Address of its pages."""
        return f"http://{self.address}"

    def stop(self) -> None:
        """End it."""
        self.process.stop()


class Prometheus:
    """One Prometheus with its data in a folder, which scrapes an Edge API; ``stop`` ends it."""

    def __init__(
        self,
        folder: Path,
        logs: Path,
        *,
        edge: str,
        alertmanager: str,
        others: Mapping[str, str] | None = None,
        rules: Path = RULES,
        interval: str = "5s",
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        given = yaml.safe_load((PROVISIONING / "prometheus.yml").read_text())
        config = folder / "prometheus.yml"
        wanted = configuration(
            given, edge=edge, alertmanager=alertmanager, others=others or {}, rules=rules, interval=interval
        )
        config.write_text(yaml.safe_dump(wanted))
        command = [
            find("prometheus") or "prometheus",
            f"--config.file={config}",
            f"--web.listen-address={self.address}",
        ]
        command += [f"--storage.tsdb.path={folder / 'prometheus'}", "--enable-feature=exemplar-storage"]
        self.process = Process("Prometheus", command, log=logs / "prometheus.log")
        _wait_ready(self)

    @property
    def url(self) -> str:
        """Address of its pages."""
        return f"http://{self.address}"

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Return the series of an instant query: ``metric`` and ``value`` each."""
        answer = requests.post(f"{self.url}/api/v1/query", data={"query": promql}, timeout=30)
        if not answer.ok:
            raise ValueError(f"{promql}: {answer.text}")
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule that it has, as it says of it."""
        answer = requests.get(f"{self.url}/api/v1/rules", timeout=30)
        answer.raise_for_status()
        return [rule for group in answer.json()["data"]["groups"] for rule in group["rules"]]

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def _wait_ready(server: Alertmanager | Prometheus) -> None:
    def ready() -> bool:
        server.process.check()
        try:
            return requests.get(f"{server.url}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_for(ready, f"{server.process.name} to answer", timeout=30)
    except BaseException:
        server.stop()
        raise


def wrong(prometheus: Prometheus) -> Iterable[str]:
    """Yield what is not as it must be: the scrape arrives, and every rule can be evaluated."""
    if not prometheus.query('up{job="edge"} == 1'):
        yield "Prometheus cannot scrape the Edge API"
    rules = prometheus.rules()
    if not rules:
        yield "Prometheus has no rules"
    yield from (f"the rule {rule['name']}: {rule['lastError']}" for rule in rules if rule["health"] == "err")
