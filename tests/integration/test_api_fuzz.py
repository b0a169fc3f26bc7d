"""Random requests over the OpenAPI document: no failure of the server, no answer that the document does not know."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rows import NOW, claim, queue_job, register
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import new_token

from demo.otlp import Store
from edge_otel.api.app import create_app
from edge_otel.models import jobs
from edge_otel.settings import LogFolder, Settings
from edge_otel.state import JobState

EXAMPLES = int(os.environ.get("EDGE_OTEL_FUZZ_EXAMPLES", "25"))
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
schemathesis.serializer.alias("application/x-protobuf", "application/octet-stream")
DOCUMENT = create_app(Settings(), LogFolder(Path("logs"), 0o755, 0o644)).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}

CASES = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    # Where nothing can be sent, nothing can be wrong with it.
    if mode is GenerationMode.POSITIVE or operation.body or any(operation.iter_parameters())
]

RUNNING, OFFERED = UUID(int=1), UUID(int=2)
EXISTING = {
    "worker_name": "w",
    "dag_id": "dag",
    "task_id": "task",
    "run_id": "run",
    "try_number": 1,
    "map_index": -1,
    "job_id": str(RUNNING),
}
"""Path parameters that lead to rows."""


@pytest.fixture(scope="module")
def collector():
    """What telemetry is passed on to."""
    store = Store()
    yield store.endpoint
    store.stop()


@pytest.fixture
def rows(database):
    """Worker ``w`` with a running job, an offered one and one that waits."""
    with database() as session:
        worker = register(session, "w", NOW, token_id=None)
        worker.state = "offline"
        for job_id in (RUNNING, OFFERED):
            queue_job(session, NOW, id=str(job_id))
            claim(session, worker, NOW)
        jobs.record_report(jobs.lock(session, str(RUNNING)), JobState.RUNNING, 1, NOW)
        session.flush()
        queue_job(session, NOW)


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize(("label", "mode"), CASES)
def test_any_request_is_answered_as_the_document_says(start_api, rows, collector, label, mode):
    api = start_api(channels=True, accept_shared_secret_tokens=True, otlp_endpoint=collector)
    headers = {"Authorization": f"Bearer {new_token('*')}"}
    operation = OPERATIONS[label]
    existing = {k: v for k, v in EXISTING.items() if any(p.name == k for p in operation.path_parameters)}
    session = requests.Session()
    session.trust_env = False

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), reach=st.booleans(), current=st.booleans())
    def send(case, reach, current):
        if reach and existing:
            case.path_parameters = (case.path_parameters or {}) | existing
        if current and isinstance(case.body, dict):
            case.body |= {"claim": 1, "task_instance_id": str(RUNNING), "session": "s1"}
        if current and case.headers is not None and "X-Claim" in case.headers:
            case.headers["X-Claim"] = "1"
        if current and "/otlp/" in label:
            case.headers = dict(case.headers or {}) | {"X-Edge-Worker": "w"}
        # What is no HTTP is answered by the server below the API.
        case.headers = {k: v for k, v in (case.headers or {}).items() if k.lower() != "content-length"}
        answer = case.call(base_url=api.url, headers=headers, session=session, timeout=20)
        case.validate_response(answer, checks=CHECKS, headers=headers)

    with session:
        send()


def test_every_route_is_tried_here():
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values())
