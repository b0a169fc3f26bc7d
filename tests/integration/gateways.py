"""What the tests of the OTLP gateway share: an API in front of a collector that is told what to answer."""

from __future__ import annotations

import gzip
import socket

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from edge_otel.settings import Settings
from edge_otel.telemetry import counters

PROTOBUF = {"Content-Type": "application/x-protobuf"}
NAME = "edge.worker.name"
HUSH = "collector-credential"


def settings_for(url, *, otlp_task_logs=False, **options):
    """Return the settings of an API with this collector, which gets what workers send, and task logs if told so: those
    of tests before would be among them."""
    return Settings(otlp_endpoint=url, otlp_headers=f"x-key={HUSH}", otlp_task_logs=otlp_task_logs, **options)


def traces(claimed=(), *, resource=True, padding=0):
    """Return a request with one span, whose resource claims these names."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    if resource:
        group.resource.attributes.add(key="service.name").value.string_value = "s"
        for name in claimed:
            group.resource.attributes.add(key=NAME).value.string_value = name
    group.scope_spans.add().spans.add(name="work").trace_state = "x" * padding
    return request.SerializeToString()


def post(api, token, body=None, *, signal="traces", worker=None, packed=False, **headers):
    """Send telemetry, and return the answer."""
    body = traces() if body is None else body
    if worker is not None:
        headers["X-Edge-Worker"] = worker
    if packed:
        body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}
    return api.call("POST", f"/v2/otlp/v1/{signal}", token, data=body, headers=PROTOBUF | headers)


def workers_of(body):
    """Return the names on the resources of a request."""
    groups = ExportTraceServiceRequest.FromString(body).resource_spans
    return [[a.value.string_value for a in group.resource.attributes if a.key == NAME] for group in groups]


def rejected(reason, signal="traces"):
    """Return how many requests were not passed on for this reason."""
    labels = {"signal": signal, "reason": reason}
    return counters.REGISTRY.get_sample_value("edge_otlp_rejected_total", labels) or 0


def stalled(api, token):
    """Return the connection of a request whose body does not come, but for its first byte."""
    head = f"POST /v2/otlp/v1/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000\r\n"
    raw = socket.create_connection(("127.0.0.1", api.port), timeout=20)
    raw.sendall(f"{head}Content-Type: application/x-protobuf\r\n\r\n".encode() + b"x")
    return raw


def unread(api, token):
    """Return the beginning of the answer to a request whose body never comes."""
    with stalled(api, token) as raw:
        return raw.recv(100)


class Sender:
    """An API to call on a connection of its own: those of a test are not for threads."""

    def __init__(self, api):
        self._url = api.url

    def call(self, method, path, token, **kwargs):
        headers = kwargs.pop("headers") | {"Authorization": f"Bearer {token}"}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self._url + path, headers=headers, timeout=30, **kwargs)
