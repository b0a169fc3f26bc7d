"""The catalogue against what others have published: semantic conventions, Prometheus' rules, Airflow's own names."""

from __future__ import annotations

import ast
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_otel.state import WorkerState
from edge_otel.telemetry import counters, names
from edge_otel.telemetry.spans import resource

INSTRUMENTS = {
    "create_counter": "counter",
    "create_up_down_counter": "updowncounter",
    "create_gauge": "gauge",
    "create_observable_gauge": "gauge",
    "create_histogram": "histogram",
}
UNITS = {"s": "_seconds", "By": "_bytes"}
SERVED = (*names.FLEET, *names.PROCESS_METRICS, *names.LOCAL)
ATTRIBUTES = [value for value in vars(names).values() if isinstance(value, names.Attribute)]
OTHER_VALUES = {
    "messaging.system": "Airflow is no system that the conventions know; they allow others",
    "messaging.operation.name": "free text in the conventions",
    "service.name": "ours",
}


def package(name: str) -> Path:
    """Return the folder of an installed package."""
    spec = find_spec(name)
    assert spec is not None
    return Path(spec.submodule_search_locations[0])


def modules(folder: Path) -> list[ast.Module]:
    return [ast.parse(file.read_text()) for file in sorted(folder.glob("*.py"))]


def constants(tree: ast.Module) -> dict[str, str]:
    """Return the names that a module of the conventions declares, without those that it calls deprecated."""
    found = {}
    for statement, comment in zip(tree.body, tree.body[1:], strict=False):
        declares = isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Constant)
        if declares and "Deprecated" not in ast.unparse(comment):
            found[statement.target.id] = statement.value.value
    return found


def published_attributes() -> set[str]:
    conventions = package("opentelemetry.semconv")
    folders = (conventions / "attributes", conventions / "_incubating" / "attributes")
    return {name for folder in folders for tree in modules(folder) for name in constants(tree).values()}


def published_values() -> dict[str, set[str]]:
    """Return the values of the attributes for which the conventions list them."""
    found = {}
    for tree in modules(package("opentelemetry.semconv") / "_incubating" / "attributes"):
        enums = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for constant, name in constants(tree).items():
            listed = enums.get("".join(part.capitalize() for part in constant.split("_")) + "Values")
            if listed is not None:
                members = [node for node in listed.body if isinstance(node, ast.Assign)]
                found[name] = {member.value.value for member in members}
    return found


def published_metrics() -> dict[str, tuple[str, str]]:
    """Return kind and unit of every metric that the conventions have, as their factories make it."""
    found = {}
    for tree in modules(package("opentelemetry.semconv") / "_incubating" / "metrics"):
        declared = constants(tree)
        for factory in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            call = factory.body[-1].value
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if given["name"].id in declared:
                found[declared[given["name"].id]] = (INSTRUMENTS[call.func.attr], given["unit"].value)
    return found


def of_others(name: str) -> bool:
    return not name.startswith(("edge.", "edge_", "airflow."))


def flattened(metric: names.Metric) -> str:
    """Return the name that a metric of a worker has in Prometheus. Format: OpenTelemetry's "Prometheus and OpenMetrics
    Compatibility"."""
    name = metric.name.replace(".", "_") + UNITS.get(metric.unit, "")
    if metric.kind == "counter":
        return f"{name}_total"
    return f"{name}_ratio" if (metric.kind, metric.unit) == ("gauge", "1") else name


def test_no_name_is_there_twice_not_even_in_prometheus():
    twice = [name for name, count in Counter(metric.name for metric in names.METRICS).items() if count > 1]
    assert twice == []
    in_prometheus = Counter([*(metric.name for metric in SERVED), *(flattened(metric) for metric in names.WORKER)])
    assert [name for name, count in in_prometheus.items() if count > 1] == []
    assert [name for name, count in Counter(map(str, ATTRIBUTES)).items() if count > 1] == []
    assert len({(span.operation, span.kind) for span in names.SPANS}) == len(names.SPANS)


def test_every_metric_of_the_file_is_in_a_group():
    declared = {value.name for value in vars(names).values() if isinstance(value, names.Metric)}
    assert declared == {metric.name for metric in names.METRICS}


@pytest.mark.parametrize("metric", SERVED, ids=lambda metric: metric.name)
def test_a_served_name_keeps_the_rules_of_prometheus(metric):
    assert re.fullmatch(r"edge_[a-z][a-z0-9_]*[a-z0-9]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    stem = metric.name.removesuffix("_total")
    ending = UNITS.get(metric.unit)
    assert ending is None or stem.endswith(ending)
    assert ending is not None or not stem.endswith(tuple(UNITS.values()))
    assert not stem.endswith(("_count", "_sum", "_bucket", "_created"))
    assert not re.search(r"_(milliseconds|kilobytes|percent|gauge|histogram)", metric.name)
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert not {"le", "quantile", "instance", "job", "dag_id", "task_id", "run_id"} & set(metric.labels)
    # Nothing that either format would escape.
    assert re.fullmatch(r'[A-Z0-9][^"\\\n]*\.', metric.help)


def test_every_attribute_belongs_to_a_span_a_metric_a_resource_or_a_log_record():
    used = {attribute for span in names.SPANS for attribute in span.attributes}
    used |= {label for metric in names.WORKER for label in metric.labels}
    assert {*names.RESOURCE, *names.LOG_RECORD} <= set(ATTRIBUTES)
    assert set(ATTRIBUTES) == used | {*names.RESOURCE, *names.LOG_RECORD}


def test_who_speaks_is_told_by_the_catalogue():
    told = resource("edge-worker", **{names.WORKER_NAME: "site-1"})
    assert told.keys() | {names.HOST_ID, names.DEPLOYMENT} == set(names.RESOURCE)


@pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)
def test_a_histogram_has_buckets_in_seconds_and_nothing_else_has(metric):
    if metric.kind == "histogram" and metric not in names.EXECUTOR:
        assert metric.unit == "s"
        assert list(metric.buckets) == sorted(set(metric.buckets)) != []
    else:
        assert metric.buckets == ()


def test_worker_is_a_label_of_the_fleet_only_and_ids_of_tasks_are_attributes_of_spans_only():
    assert [m.name for m in names.PROCESS_METRICS if "worker" in m.labels] == []
    assert [
        m.name for m in names.WORKER for label in m.labels if label.startswith(("airflow.", "messaging.message"))
    ] == []


def test_standard_metrics_are_those_of_the_conventions():
    published = published_metrics()
    ours = {metric.name: (metric.kind, metric.unit) for metric in names.METRICS if of_others(metric.name)}
    assert len(ours) > 10
    assert ours == {name: published.get(name) for name in ours}


def test_standard_attributes_are_those_of_the_conventions():
    used = {str(attribute) for attribute in ATTRIBUTES if of_others(attribute)}
    assert len(used) > 15
    assert used - published_attributes() == set()


def test_values_of_standard_attributes_are_those_of_the_conventions():
    published = published_values()
    assert published["cpu.mode"] >= {"user", "idle"}
    strange = {
        str(attribute): set(attribute.values) - published[attribute]
        for attribute in ATTRIBUTES
        if attribute in published and attribute not in OTHER_VALUES
    }
    assert {name: values for name, values in strange.items() if values} == {}


def test_airflow_s_attributes_are_those_that_airflow_sets():
    airflow = package("airflow")
    files = [*(airflow / "models").glob("*.py"), *(airflow / "jobs").glob("*.py")]
    set_there = {name for file in files for name in re.findall(r'"(airflow\.[a-z_.]+)"', file.read_text())}
    assert {str(attribute) for attribute in ATTRIBUTES if attribute.startswith("airflow.")} <= set_there


@pytest.mark.parametrize("span", names.SPANS, ids=lambda span: f"{span.operation} {span.kind}")
def test_a_span_has_a_kind_a_known_service_and_attributes_of_the_catalogue(span):
    assert span.kind in ("INTERNAL", "PRODUCER", "CONSUMER", "CLIENT", "SERVER")
    assert span.service in names.SERVICE_NAME.values
    assert len(set(span.attributes)) == len(span.attributes)
    assert set(span.attributes) <= set(ATTRIBUTES)


def test_every_state_has_its_number():
    assert names.STATE_CODES.keys() == {state.value for state in WorkerState}
    assert len(set(names.STATE_CODES.values())) == len(WorkerState)


def test_there_is_a_counter_for_each_metric_of_a_process_under_the_same_name():
    declared = {key: value for key, value in vars(names).items() if value in names.PROCESS_METRICS}
    for constant, metric in declared.items():
        (family,) = getattr(counters, constant).describe()
        assert family.name == metric.name.removesuffix("_total")
