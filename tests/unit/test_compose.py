"""The stack in containers: what can be known of it without a container engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from dashboards import prometheus
from edge_otel.telemetry import counters, names

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "dashboards" / "provisioning"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.observability.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DATASOURCES: list[dict[str, Any]] = yaml.safe_load((PROVISIONING / "grafana/datasources.yaml").read_text())[
    "datasources"
]
ADDRESS = re.compile(r"(?:https?|postgresql\+psycopg2)://(?:[^/@\s\"]*@)?([a-z][a-z-]*):(\d+)|\"([a-z][a-z-]*):(\d+)\"")
LISTENS = {"postgres": {"5432"}}
"""Ports that no configuration here names."""


def awaited(condition: str) -> set[str]:
    """Services of which another one waits for this."""
    return {
        name
        for service in SERVICES.values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == condition
    }


ONCE = awaited("service_completed_successfully")
LASTING = SERVICES.keys() - ONCE


def mounts(service: str) -> Iterator[tuple[str, str, bool]]:
    """What is mounted, where, and whether it may be written."""
    for text in SERVICES[service].get("volumes", ()):
        source, target, *mode = text.split(":")
        yield source, target, mode != ["ro"]


def texts(value: Any) -> Iterator[str]:
    """Every text within a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def test_an_image_is_built_by_one_service_and_pulled_by_none() -> None:
    ours = {name: service for name, service in SERVICES.items() if service["image"].startswith("edge-otel:")}
    assert [name for name, service in ours.items() if "build" in service] == ["migrate"]
    assert {service["pull_policy"] for name, service in ours.items() if name != "migrate"} == {"never"}


def test_every_image_has_a_version() -> None:
    versions = {name: service["image"].partition(":")[2] for name, service in SERVICES.items()}
    assert [name for name, version in versions.items() if not re.match(r"v?\d+\.\d+", version)] == []
    assert re.search(r"^FROM \S+:slim-3\.3\.2-python3\.11$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_every_service_is_limited_and_every_lasting_one_tells_its_health_and_is_started_again() -> None:
    assert [name for name, service in SERVICES.items() if not {"mem_limit", "cpus"} <= service.keys()] == []
    assert [name for name in LASTING if "test" not in SERVICES[name].get("healthcheck", {})] == []
    assert [name for name in LASTING if SERVICES[name].get("restart") != "unless-stopped"] == []
    assert [name for name in ONCE if SERVICES[name].get("restart", "no") != "no"] == []


def test_services_start_in_an_order_that_there_is() -> None:
    assert awaited("service_healthy") <= LASTING
    assert awaited("service_started") == set()
    order = TopologicalSorter({name: service.get("depends_on", {}) for name, service in SERVICES.items()})
    assert set(order.static_order()) == SERVICES.keys()


def test_what_is_mounted_is_there() -> None:
    sources = {source for name in SERVICES for source, _, _ in mounts(name)}
    assert [s for s in sources if s.startswith("./") and not (ROOT / s).exists()] == []
    assert {s for s in sources if not s.startswith("./")} == COMPOSE["volumes"].keys()


def test_the_worker_reaches_the_api_alone() -> None:
    assert SERVICES["worker"]["networks"] == ["site"]
    assert COMPOSE["networks"]["site"]["internal"] is True
    assert {name for name in SERVICES if "site" in SERVICES[name].get("networks", ())} == {"worker", "api-server"}
    assert "network_mode" not in SERVICES["worker"]


def test_the_worker_has_no_secret_but_its_token_which_nobody_else_reads() -> None:
    central = {source for name in SERVICES.keys() - {"worker"} for source, _, _ in mounts(name)}
    shared = {source for source, _, _ in mounts("worker")} & central
    assert shared == {"site-token", "./demo/dags"}
    assert {n: w for n in SERVICES for s, _, w in mounts(n) if s == "site-token"} == {
        "worker-token": True,
        "worker": False,
    }
    assert not [name for name in SERVICES["worker"]["environment"] if name.endswith("_CMD")]


def test_no_secret_is_written_down() -> None:
    named = re.compile(r"(PASSWORD|TOKEN|SECRET|KEY|CONN)(_+[A-Z]+)?$")
    found = {
        name: service["environment"][name] for service in SERVICES.values() for name in service.get("environment", {})
    }
    secret = {name for name in found if named.search(name)}
    assert {name for name in secret if not name.endswith(("_CMD", "_FILE", "__FILE"))} == set()
    assert len(secret) >= 6


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def listening() -> dict[str, set[str]]:
    """The ports of each service, from its health check and its configuration."""
    ports = {name: set(LISTENS.get(name, ())) for name in SERVICES}
    for name, service in SERVICES.items():
        said = " ".join(texts(service.get("healthcheck", {})))
        ports[name] |= set(re.findall(r"127\.0\.0\.1:(\d+)", said))
        for source, _, _ in mounts(name):
            if source.startswith("./dashboards/provisioning") and (ROOT / source).exists():
                ports[name] |= set(re.findall(r"0\.0\.0\.0:(\d+)", (ROOT / source).read_text()))
    return ports


def test_every_address_in_a_configuration_is_that_of_a_service_which_can_be_reached() -> None:
    ports = listening()
    wrong, seen = [], 0
    for name, service in SERVICES.items():
        configured = [ROOT / source for source, _, _ in mounts(name) if source.startswith("./dashboards/provisioning")]
        said = "\n".join([*texts(service), *(path.read_text() for path in configured if path.exists())])
        for match in ADDRESS.finditer(said):
            host, port = (match[1], match[2]) if match[1] else (match[3], match[4])
            if host == "localhost":
                continue
            seen += 1
            if port not in ports.get(host, ()):
                wrong.append(f"{name}: {host}:{port} is nobody's")
            elif name != "secrets" and not set(service["networks"]) & set(SERVICES[host]["networks"]):
                wrong.append(f"{name}: {host} is in another network")
    assert wrong == []
    assert seen >= 15


def test_data_sources_lead_to_data_sources_that_there_are() -> None:
    uids = {source["uid"] for source in DATASOURCES}
    said = (PROVISIONING / "grafana/datasources.yaml").read_text()
    led = set(re.findall(r"datasourceUid: (\S+)", said))
    assert led == {"tempo", "loki"}
    assert led <= uids
    by_uid = {source["uid"]: source for source in DATASOURCES}
    destination = by_uid["prometheus"]["jsonData"]["exemplarTraceIdDestinations"][0]
    carrier = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    exemplar = counters.exemplar(carrier) or {}
    assert exemplar.get(destination["name"]) == "a" * 32, "exemplars have the label that is looked for"


def test_dashboards_find_a_data_source_of_each_kind_that_they_ask() -> None:
    boards = "".join(path.read_text() for path in (ROOT / "dashboards" / "out").glob("*.json"))
    asked = set(re.findall(r'"type": "([a-z]+)",\s*"uid": "\$\{\w+_datasource\}"', boards))
    assert asked == {"prometheus", "loki", "tempo"}
    assert asked <= {source["type"] for source in DATASOURCES}


def test_a_trace_leads_to_the_log_of_the_services_that_have_one() -> None:
    query = next(s for s in DATASOURCES if s["uid"] == "tempo")["jsonData"]["tracesToLogsV2"]["query"]
    selector = re.match(r'\{(\w+)=~"([^"]+)"\}', query)
    assert selector is not None
    assert selector[1] == prometheus.label(names.SERVICE_NAME)
    assert set(selector[2].split("|")) <= set(names.SERVICE_NAME.values)


def test_what_a_site_sends_a_day_late_is_taken_and_found() -> None:
    prometheus_yml, loki, tempo = (
        yaml.safe_load((PROVISIONING / name).read_text()) for name in ("prometheus.yml", "loki.yaml", "tempo.yaml")
    )
    assert prometheus_yml["storage"]["tsdb"]["out_of_order_time_window"] == "1d"
    kept = loki["ingester"]["max_chunk_age"]
    # Of a stream Loki takes what is half of that older than the newest line: https://grafana.com/docs/loki/latest/configure/
    assert hours(kept) / 2 >= 24
    assert loki["querier"]["query_ingesters_within"] == kept
    assert hours(loki["limits_config"]["reject_old_samples_max_age"]) >= 24
    assert hours(tempo["storage"]["trace"]["wal"]["ingestion_time_range_slack"]) >= 24


def hours(duration: str) -> int:
    """The number before an h."""
    return int(duration.removesuffix("h"))


def test_metrics_that_come_by_otlp_have_the_labels_that_panels_use() -> None:
    collector = yaml.safe_load((PROVISIONING / "collector.yaml").read_text())
    statements = " ".join(collector["processors"]["transform"]["metric_statements"])
    made = re.findall(r'set\(datapoint\.attributes\["([^"]+)"\], resource\.attributes\["([^"]+)"\]\)', statements)
    assert made == [(attribute, attribute) for attribute in prometheus.PROMOTED]
    pipelines = collector["service"]["pipelines"]
    assert "transform" in pipelines["metrics"]["processors"]
    used = {part for pipeline in pipelines.values() for kind in pipeline.values() for part in kind}
    assert used == {name for kind in ("receivers", "processors", "exporters") for name in collector[kind]}
    written = collector["exporters"]["prometheusremotewrite"]["endpoint"]
    assert written.endswith("/api/v1/write")
    assert {"--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage"} <= set(
        SERVICES["prometheus"]["command"]
    )
