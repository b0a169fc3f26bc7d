"""``airflow edge api``: the Edge API as processes of its own, started by the command and ended by a signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from channels import Far
from served import new_token, registration
from websockets.exceptions import ConnectionClosed

from demo.environment import MARKER, Secrets, bare, central
from demo.process import Process, free_port, with_environment
from demo.wait import wait_for
from edge_otel.messages import RESTARTING

PATIENCE = 120.0
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

Start = Callable[..., "Server"]


class Server:
    """One ``airflow edge api``."""

    def __init__(self, env: dict[str, str], log: Path, port: int, *options: str) -> None:
        self.port = port
        self.marker = env[MARKER]
        command = [sys.executable, "-m", "airflow", "edge", "api", "--host", "127.0.0.1", "--port", str(port), *options]
        self.process = Process("airflow edge api", command, log=log, env=env)
        self.scheme = "https" if "--ssl-cert" in options else "http"
        self.url = f"{self.scheme}://127.0.0.1:{port}/edge_worker"
        self._http = requests.Session()
        self._http.trust_env = False

    def call(self, method: str, path: str, token: str | None = None, **kwargs: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._http.request(method, self.url + path, headers=headers, timeout=30, **kwargs)

    def ready(self, **kwargs: Any) -> bool:
        self.process.check()
        try:
            return self.call("GET", "/readyz", **kwargs).ok
        except requests.ConnectionError:
            return False

    def wait_ready(self, **kwargs: Any) -> None:
        wait_for(lambda: self.ready(**kwargs), "the server to be ready", timeout=PATIENCE)

    def serving(self) -> list[psutil.Process]:
        """Return the processes that were started to serve, of those that live."""
        children = with_environment(MARKER, self.marker)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def left(self) -> list[psutil.Process]:
        """Return every process of this server's that lives, wherever it moved."""
        return with_environment(MARKER, self.marker)

    def close(self) -> None:
        self._http.close()
        self.process.kill()
        for process in self.left():
            process.kill()


@pytest.fixture
def env(database, database_url, tmp_path) -> dict[str, str]:
    """The environment of a central site that does not serve the Edge API inside Airflow's."""
    settings = central(
        bare(f"standalone-{os.urandom(4).hex()}"),
        home=tmp_path,
        dags=tmp_path,
        database=database_url,
        port=1,
        executor="edge_otel.executor.EdgeExecutor",
        keys=Secrets(),
    )
    # The tests' database has Airflow's tables, and not its record of migrations.
    return settings | {"AIRFLOW__EDGE__API_ENABLED": "False", "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False"}


@pytest.fixture
def start(env, tmp_path) -> Iterator[Start]:
    """Starts ``airflow edge api`` with these options and waits until it is ready."""
    started: list[Server] = []

    def start_one(*options: str, port: int | None = None, wait: bool = True, **kwargs: Any) -> Server:
        log = tmp_path / f"api-{len(started)}.log"
        server = Server({**env, MARKER: f"{env[MARKER]}-{len(started)}"}, log, port or free_port(), *options)
        started.append(server)
        if wait:
            server.wait_ready(**kwargs)
        return server

    yield start_one
    for server in started:
        server.close()


def nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@on_postgresql
def test_it_serves_the_same_paths_as_inside_airflow_and_nothing_else(start, database):
    server = start()
    assert server.call("GET", "/livez").json() == {"status": "ok", "detail": None}
    assert server.call("GET", "/v1/health").json()["status"] == "healthy"
    assert "/v1/worker/{worker_name}" in server.call("GET", "/openapi.json").json()["paths"]
    token = new_token("w")
    answer = server.call("POST", "/v1/worker/w", token, json=registration())
    assert (answer.status_code, answer.json()["state"]) == (200, "starting")
    assert server.call("POST", "/v1/worker/other", token, json=registration()).status_code == 403
    # The fleet page needs Airflow's login.
    assert (
        server.call("GET", "/ui/context").status_code == server.call("GET", "/ui/static/x/page.js").status_code == 404
    )
    for path in ("/", "/v1/health", "/execution/", "/api/v2/version"):
        assert requests.get(f"http://127.0.0.1:{server.port}{path}", timeout=10).status_code == 404
    assert "execution_api_url is not set" in server.process.log.read_text()


@on_postgresql
def test_a_worker_on_a_channel_is_told_that_the_server_goes_and_nothing_stays(start, database):
    server = start("--workers", "2")
    processes = server.serving()
    assert len(processes) == 2
    far = Far(server.url, new_token("w"))
    try:
        assert far.hello().type == "welcome"
        server.process.terminate()
        assert far.hear("bye").reason
        with pytest.raises(ConnectionClosed) as closed:
            far.hear()
        assert closed.value.rcvd.code == RESTARTING
    finally:
        far.close()
    server.process.wait(PATIENCE)
    wait_for(lambda: server.left() == [], "the processes to end", timeout=PATIENCE)
    assert nobody_listens(server.port)
    assert "Traceback" not in server.process.log.read_text()


@on_postgresql
def test_a_process_that_died_is_replaced_and_all_end_when_their_supervisor_was_killed(start, database):
    server = start("--workers", "2")
    died = server.serving()[0]
    died.kill()
    wait_for(lambda: not psutil.pid_exists(died.pid), "the supervisor to notice", timeout=PATIENCE)
    wait_for(lambda: len(server.serving()) == 2, "another process", timeout=PATIENCE)
    server.process.kill_alone()
    wait_for(lambda: server.left() == [], "the processes to end", timeout=PATIENCE)
    assert nobody_listens(server.port)


@on_postgresql
def test_its_processes_count_together_and_one_that_was_killed_is_forgotten(start, env, tmp_path):
    env["TMPDIR"] = str(tmp_path)
    server = start("--workers", "2")
    (folder,) = tmp_path.glob("edge-metrics-*")

    def counted(line: str) -> float:
        # Each time over another connection, so that any process may answer.
        text = requests.get(f"{server.url}/metrics", timeout=30, proxies={"http": ""}).text
        (value,) = [said.rpartition(" ")[2] for said in text.splitlines() if said.startswith(f"{line} ")]
        assert text.count("# TYPE edge_heartbeats_total ") == text.count("# TYPE edge_workers ") == 1
        return float(value)

    calls = 'edge_api_request_duration_seconds_count{method="GET",route="/v1/health",status="200"}'
    while len(list(folder.glob("histogram_*.db"))) < 2:
        requests.get(f"{server.url}/v1/health", timeout=30, proxies={"http": ""})
    before = counted(calls)
    for _ in range(10):
        requests.get(f"{server.url}/v1/health", timeout=30, proxies={"http": ""})
    assert {counted(calls) for _ in range(6)} == {before + 10}
    far = Far(server.url, new_token("w"))
    try:
        assert far.hello().type == "welcome"
        assert {counted("edge_channel_connections") for _ in range(6)} == {1}
        own = far.socket.local_address[1]
        (holder,) = [p for p in server.serving() if any(c.raddr and c.raddr.port == own for c in p.net_connections())]
        holder.kill()
    finally:
        far.close()
    # It is gone when its supervisor has noticed: that takes a minute if it was being asked whether it is well.
    wait_for(lambda: counted("edge_channel_connections") == 0, "the killed one to be forgotten", timeout=2 * PATIENCE)
    assert counted(calls) == before + 10
    assert list(folder.glob(f"gauge_live*_{holder.pid}.db")) == []


@on_postgresql
def test_two_share_a_database_and_a_signal_ends_each_in_order(start, database):
    first, second = start(wait=False), start(wait=False)
    first.wait_ready()
    second.wait_ready()
    token = new_token("w")
    assert first.call("POST", "/v1/worker/w", token, json=registration()).ok
    assert second.call("PATCH", "/v1/worker/w", token, json=registration("idle")).json()["state"] == "idle"
    for server, number in ((first, signal.SIGTERM), (second, signal.SIGINT)):
        os.kill(server.process.pid, number)
        server.process.wait(PATIENCE)
        log = server.process.log.read_text()
        assert "Application shutdown complete" in log
        assert "Traceback" not in log
        assert server.left() == []


@on_postgresql
def test_https_with_a_certificate(start, database, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    extension = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*command, *extension], check=True, capture_output=True)
    server = start("--ssl-cert", str(certificate), "--ssl-key", str(key), verify=str(certificate))
    assert server.call("GET", "/v1/health", verify=str(certificate)).ok


def test_it_loads_nothing_of_the_rest_of_airflows_api(tmp_path):
    code = (
        "import json, sys; from edge_otel.api.standalone import create_standalone_app; create_standalone_app();"
        "print(json.dumps([m for m in sys.modules if m.startswith('airflow.api_fastapi')]))"
    )
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    loaded = json.loads(ran.stdout.splitlines()[-1])
    assert "airflow.api_fastapi.auth.tokens" in loaded
    assert [m for m in loaded if "core_api" in m or "execution_api" in m or m == "airflow.api_fastapi.app"] == []


@pytest.fixture
def command(database, monkeypatch):
    """Runs ``airflow edge api`` in this process, as far as it does not serve."""
    from airflow.cli.cli_parser import get_parser

    monkeypatch.setenv("AIRFLOW__DATABASE__CHECK_MIGRATIONS", "False")

    def run(*arguments: str) -> object:
        try:
            given = get_parser().parse_args(["edge", "api", *arguments])
            given.func(given)
        except SystemExit as ended:
            return ended.code
        return 0

    return run


@on_postgresql
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "0"), "--workers 0: at least 1"),
        (("--port", "0"), "--port 0: from 1 to 65535"),
        (("--port", "65536"), "--port 65536: from 1 to 65535"),
        (("--host", "256.0.0.1"), "Cannot listen on 256.0.0.1 port 8790: "),
        (("--ssl-cert", "/c"), "--ssl-cert and --ssl-key: give both or none"),
        (("--ssl-key", "/k"), "--ssl-cert and --ssl-key: give both or none"),
        (("--ssl-cert", "/c", "--ssl-key", "/k"), "--ssl-cert '/c', --ssl-key '/k': No such file or directory"),
        (("--ssl-cert", __file__, "--ssl-key", __file__), f"--ssl-cert {__file__!r}, --ssl-key {__file__!r}: "),
    ],
)
def test_a_wrong_option_is_one_line(command, arguments, said):
    code = command(*arguments)
    assert isinstance(code, str), "Python prints it to standard error and exits with 1"
    assert code.startswith(f"Error: {said}")
    assert "\n" not in code


@on_postgresql
@pytest.mark.parametrize("arguments", [("--workers", "two"), ("--nothing",)])
def test_an_option_that_is_none_ends_with_code_2(command, arguments):
    assert command(*arguments) == 2


@on_postgresql
def test_an_option_of_the_configuration_that_is_wrong_is_one_line(command, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EDGE__HEARTBEAT_INTERVAL", "soon")
    assert command() == "Error: [edge] heartbeat_interval = 'soon': must be a number."


@on_postgresql
def test_a_port_that_is_taken_is_one_line(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = command("--host", "127.0.0.1", "--port", str(port))
    assert code == (
        f"Error: Cannot listen on 127.0.0.1 port {port}: Address already in use. Give another --host or --port."
    )


@on_postgresql
def test_a_database_without_the_tables_is_one_line_and_an_exit_code(env, postgres_server):
    env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = postgres_server.new_database()
    command = [sys.executable, "-m", "airflow", "edge", "api", "--port", str(free_port())]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 1
    assert ran.stderr.strip().splitlines()[-1] == (
        "Error: The edge-otel tables are missing or old. Run `airflow db migrate`, then start again."
    )
    assert "Traceback" not in ran.stderr
