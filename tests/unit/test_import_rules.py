"""Who may import whom, read from the syntax trees."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"edge_otel": ROOT / "edge_otel", "edge_worker": ROOT / "worker" / "edge_worker"}

PURE = {
    "edge_otel.state",
    "edge_otel.errors",
    "edge_otel.reconcile",
    "edge_otel.load_history",
    "edge_otel.versions",
    "edge_otel.telemetry.names",
    "edge_otel.api.assign",
    "edge_otel.api.outage",
    "edge_worker.endings",
    "edge_worker.disconnect",
    "edge_worker.exits",
    "edge_worker.limits",
    "edge_worker.plan",
    "edge_worker.logplan",
    "edge_worker.health",
    "edge_worker.liveness",
}
HARMLESS = {
    "__future__",
    "collections.abc",
    "dataclasses",
    "datetime",
    "enum",
    "heapq",
    "random",
    "re",
    "signal",
    "typing",
    "packaging.version",
}
"""What pure files may import beside each other."""
CLOCKS_AND_IO = {"now", "utcnow", "today", "open", "print", "input", "__import__"}

AIRFLOW_ALLOWED = (
    "edge_otel.executor",
    "edge_otel.workload",
    "edge_otel.plugin",
    "edge_otel.settings",
    "edge_otel.remote_log",
    "edge_otel.logging_config",
    "edge_otel.cli",
    "edge_otel.api.auth",
    "edge_otel.api.ui_access",
    "edge_otel.api.registration",
    # It makes what Airflow's own API would accept.
    "edge_otel.api.task_tokens",
    "edge_otel.models.audit",
    "edge_otel.models.tables",
    "edge_otel.models.session",
    "edge_otel.models.database",
    "edge_otel.models.wakeup",
    "edge_otel.models.task_instances",
    "edge_otel.models.migrations",
    # These run in the task interpreter.
    "edge_worker.task_run",
    "edge_worker.zygote",
    "edge_worker.endurance",
    "edge_worker.lifeline",
    "edge_worker.lenient",
)
SHARED = (
    "edge_otel",
    "edge_otel.state",
    "edge_otel.wire",
    "edge_otel.messages",
    "edge_otel.errors",
    "edge_otel.telemetry.names",
    "edge_otel.telemetry.context",
    "edge_otel.telemetry.spans",
    "edge_otel.telemetry.protobuf",
    "edge_otel.telemetry.redaction",
    "edge_otel.telemetry.variables",
)
"""What the daemon may use of the central side; of the package itself, its version."""


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of ours by its name."""
    trees = {}
    for package, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(file.read_text(), str(file))
    return trees


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Yield the full name of everything that a module imports, also inside functions."""
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module or ""


def within(module: str, packages: tuple[str, ...] | set[str]) -> bool:
    """Return whether a module is one of these, or inside one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def breaches(importer: tuple[str, ...], forbidden: set[str]) -> list[str]:
    """Return the imports of something forbidden in modules that are not in ``importer``."""
    return [
        f"{name} imports {imported}"
        for name in sorted(MODULES)
        if not within(name, importer)
        for imported in imports(name)
        if within(imported, forbidden)
    ]


def test_every_module_is_looked_at():
    assert {"edge_otel.executor", "edge_otel.api.v1_jobs", "edge_worker.main"} | PURE <= MODULES.keys()


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_file_imports_only_what_is_pure(name):
    assert [i for i in imports(name) if i not in HARMLESS | PURE] == []


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_file_reads_no_clock_and_does_no_io(name):
    used = {n.id for n in ast.walk(MODULES[name]) if isinstance(n, ast.Name)}
    called = {n.func.attr for n in ast.walk(MODULES[name]) if isinstance(n, ast.Call) and hasattr(n.func, "attr")}
    assert used & (CLOCKS_AND_IO - {"now"}) == set()
    assert called & CLOCKS_AND_IO == set()


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("sqlalchemy", ("edge_otel.models",)),
        ("alembic", ("edge_otel.models",)),
        ("fastapi", ("edge_otel.api",)),
        ("starlette", ("edge_otel.api",)),
        ("airflow", AIRFLOW_ALLOWED),
        ("requests", ("edge_worker",)),
        ("httpx", ("edge_otel.api.forwarder", "edge_worker.endurance")),
        ("websockets", ("edge_worker",)),
        ("psutil", ("edge_worker",)),
        ("prometheus_client", ("edge_otel.api", "edge_otel.telemetry.counters")),
        (
            "edge_otel.models",
            (
                "edge_otel.models",
                "edge_otel.api",
                "edge_otel.executor",
                "edge_otel.workload",
                "edge_otel.cli",
                "edge_otel.operate",
                "edge_otel.log_text",
                "edge_otel.remote_log",
            ),
        ),
        ("edge_otel.api", ("edge_otel.api", "edge_otel.models.assignment", "edge_otel.plugin")),
        ("edge_otel.executor", ("edge_otel.executor",)),
        ("edge_worker", ("edge_worker",)),
    ],
)
def test_a_package_is_imported_only_where_it_belongs(package, allowed):
    assert breaches(allowed, {package}) == []


def test_the_daemon_uses_only_the_shared_words_of_the_central_side():
    uses = {i for name in MODULES if within(name, ("edge_worker",)) for i in imports(name) if within(i, ("edge_otel",))}
    assert [i for i in uses if i not in SHARED and not within(i, SHARED[1:])] == []


def test_the_daemon_takes_nothing_but_the_version_from_the_package_itself():
    taken = {
        alias.name
        for name, tree in MODULES.items()
        if within(name, ("edge_worker",))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "edge_otel"
        for alias in node.names
        if f"edge_otel.{alias.name}" not in MODULES
    }
    assert taken <= {"__version__"}


def test_the_daemon_does_not_load_airflow_fastapi_or_sqlalchemy():
    in_task_interpreter = {
        "edge_worker.task_run",
        "edge_worker.zygote",
        "edge_worker.endurance",
        "edge_worker.lifeline",
        "edge_worker.lenient",
        "edge_worker.__main__",
    }
    daemon = sorted(n for n in MODULES if within(n, ("edge_worker",)) and n not in in_task_interpreter)
    load = "import importlib, json, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    code = f"{load}; print(json.dumps(list(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code, *daemon], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert "edge_worker" in loaded
    assert loaded & {"airflow", "fastapi", "starlette", "sqlalchemy", "alembic", "uvicorn"} == set()
