"""Connections: kept alive, by proxy, with certificates, with a token that changes."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Start, finished, workload
from fake_server import Answer, Call, FakeCentral

from demo.wait import wait_for


@pytest.mark.parametrize("transport", ["polling"])
def test_many_requests_use_few_connections(central: FakeCentral, start: Start) -> None:
    start()
    jobs = [central.offer(workload("log(b'x')")) for _ in range(5)]
    central.wait_for(lambda: all(finished(job)() for job in jobs))
    central.wait_for(lambda: len(central.calls) >= 60)
    assert central.connections <= 6


class Proxy:
    """A forward proxy: CONNECT, and plain requests passed on as they are."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.connects = True
        self.restarting = 0
        """Connections to close without a word."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.closing = False
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            client, _ = self.listener.accept()
            if self.closing:
                client.close()
                return
            threading.Thread(target=self.relay, args=(client,), daemon=True).start()

    def relay(self, client: socket.socket) -> None:
        # Either end may go at any time, as at every proxy.
        with client, suppress(OSError):
            self.carry(client)

    def carry(self, client: socket.socket) -> None:
        head = client.recv(65536)
        if not head:
            return
        first = head.split(b"\r\n")[0].decode()
        self.asked.append(first)
        if self.restarting:
            self.restarting -= 1
            return
        method, target, _ = first.split()
        if method == "CONNECT" and not self.connects:
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        place = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = place.partition(":")
        with socket.create_connection((host, int(port))) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                server.sendall(head)
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)

    def close(self) -> None:
        self.closing = True
        socket.create_connection(self.listener.getsockname()).close()
        self.thread.join()
        self.listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    found = Proxy()
    yield found
    found.close()


def test_proxy_of_the_flag_is_used(central: FakeCentral, start: Start, proxy: Proxy, transport: str) -> None:
    start(proxy=proxy.url, env={"NO_PROXY": "", "HTTP_PROXY": "http://127.0.0.1:9"})
    assert proxy.asked
    assert f"127.0.0.1:{central.port}" in proxy.asked[0]
    assert proxy.asked[0].startswith("CONNECT ") is (transport == "channel")
    job = central.offer(workload("log(b'x')"))
    central.wait_for(finished(job))


def test_proxy_of_the_environment_is_used_for_the_scheme_of_the_server_only(
    central: FakeCentral, start: Start, proxy: Proxy
) -> None:
    start(env={"HTTPS_PROXY": proxy.url, "https_proxy": proxy.url, "NO_PROXY": "", "no_proxy": ""})
    assert proxy.asked == []


@pytest.mark.parametrize("transport", ["auto"])
def test_proxy_that_refuses_connect_means_polling(central: FakeCentral, start: Start, proxy: Proxy) -> None:
    proxy.connects = False
    start(proxy=proxy.url)
    job = central.offer(workload("log(b'x')"))
    central.wait_for(finished(job))
    assert proxy.asked[0].startswith("CONNECT ")
    assert central.upgrades == []


@pytest.mark.parametrize("transport", ["auto"])
def test_proxy_that_restarts_is_no_reason_to_poll(central: FakeCentral, start: Start, proxy: Proxy) -> None:
    proxy.restarting = 2
    start(proxy=proxy.url)
    assert central.upgrades
    assert {line.split()[0] for line in proxy.asked} == {"CONNECT"}


@pytest.mark.parametrize("transport", ["polling", "channel"])
def test_password_of_a_proxy_is_not_logged(start: Start) -> None:
    bad = "http://user:hunter2@127.0.0.1:99999"
    env = {"HTTP_PROXY": bad, "http_proxy": bad, "NO_PROXY": "", "no_proxy": ""}
    daemon = start(env=env, registered=False, log_level="debug")
    wait_for(lambda: daemon.said.count("trying again") > 1, "two attempts", timeout=20, pause=0.05)
    assert "hunter2" not in daemon.said


def test_proxy_of_the_environment_is_used_but_for_hosts_in_no_proxy(
    central: FakeCentral, start: Start, proxy: Proxy
) -> None:
    # Without a scheme, as some have it.
    through = {"HTTP_PROXY": proxy.url.removeprefix("http://"), "http_proxy": proxy.url.removeprefix("http://")}
    first = start(env={**through, "NO_PROXY": "", "no_proxy": ""})
    assert proxy.asked
    first.process.terminate()
    first.process.wait(20)
    proxy.asked.clear()
    start(env={**through, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"})
    assert proxy.asked == []


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a certificate for 127.0.0.1 and one for a client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca", "-days", "2")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        (folder / f"{name}.ext").write_text(extension)
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext"),
        )
    return folder


@pytest.fixture
def tls(certificates: Path) -> Iterator[FakeCentral]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = FakeCentral(context)
    yield server
    server.close()


def test_own_ca_and_client_certificate(tls: FakeCentral, start: Start, certificates: Path, transport: str) -> None:
    files = {
        "ca_file": certificates / "ca.pem",
        "client_cert": certificates / "client.pem",
        "client_key": certificates / "client.key",
    }
    # An environment of its own would win in requests, were it asked.
    start(server=tls.url, registered=False, env={"REQUESTS_CA_BUNDLE": "/nonexistent"}, **files)
    tls.wait_for(lambda: tls.registered)
    assert bool(tls.channels) is (transport == "channel")
    job = tls.offer(workload("log(b'x')"))
    tls.wait_for(finished(job))


def test_own_ca_of_the_environment_and_through_a_proxy(
    tls: FakeCentral, start: Start, certificates: Path, proxy: Proxy
) -> None:
    start(
        server=tls.url,
        registered=False,
        client_cert=certificates / "client.pem",
        client_key=certificates / "client.key",
        env={
            "REQUESTS_CA_BUNDLE": str(certificates / "ca.pem"),
            "HTTPS_PROXY": proxy.url,
            "https_proxy": proxy.url,
            "NO_PROXY": "",
            "no_proxy": "",
        },
    )
    job = tls.offer(workload("log(b'x')"))
    tls.wait_for(finished(job))
    assert proxy.asked[0].startswith(f"CONNECT 127.0.0.1:{tls.port} ")


def test_server_that_wants_a_client_certificate_gets_none_and_is_waited_for(
    tls: FakeCentral, start: Start, certificates: Path
) -> None:
    daemon = start(server=tls.url, registered=False, ca_file=certificates / "ca.pem")
    tls.wait_for(lambda: "trying again" in daemon.said)
    assert daemon.exit_code() is None
    assert not tls.registered


def test_certificate_of_an_unknown_ca_is_not_trusted(tls: FakeCentral, start: Start) -> None:
    daemon = start(server=tls.url, registered=False)
    tls.wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in daemon.said)
    assert not tls.registered


@pytest.mark.parametrize("transport", ["polling"])
def test_rotated_token_is_picked_up(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    daemon = start()
    central.token = "ewt_two.secret-of-the-second"
    (tmp_path / "token").write_text(central.token)
    job = central.offer(workload("log(b'x')"))
    central.wait_for(finished(job))
    assert "refused" not in daemon.said


@pytest.mark.parametrize("transport", ["polling"])
def test_revoked_token_ends_nothing(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    daemon = start()
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running")
    central.token = "ewt_other.x"
    central.wait_for(lambda: "heartbeat refused" in daemon.said)
    assert daemon.exit_code() is None
    assert len(daemon.folders()) == 1


@pytest.mark.parametrize("transport", ["polling"])
def test_retry_after_is_honoured(central: FakeCentral, start: Start) -> None:
    asked: list[Call] = []

    def limit(call: Call) -> Answer | None:
        if "/v1/worker/" not in call.path:
            return None
        asked.append(call)
        return Answer(429, headers={"Retry-After": "2"}) if len(asked) == 1 else None

    central.faults.append(limit)
    start()
    assert asked[1].time - asked[0].time >= 2


def test_redirect_is_not_followed_but_told(central: FakeCentral, start: Start) -> None:
    elsewhere = Answer(308, headers={"Location": "https://elsewhere.example/"})
    central.faults.append(lambda call: elsewhere)
    central.refuse_upgrade = lambda call: elsewhere
    daemon = start(registered=False)
    central.wait_for(lambda: "set --server to the final URL" in daemon.said)
    assert daemon.exit_code() is None


@pytest.mark.parametrize("transport", ["channel"])
def test_names_that_nobody_resolves_hold_up_nothing_but_the_way_to_the_server(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    slow, asked, go = tmp_path / "slow", tmp_path / "asked", tmp_path / "go"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import socket, time\n"
        "from pathlib import Path\n"
        "from edge_worker import upgrade\n"
        "resolve = socket.getaddrinfo\n"
        "def resolve_later(host, *arguments, **more):\n"
        "    if host != 'central.example':\n"
        "        return resolve(host, *arguments, **more)\n"
        f"    with Path({str(asked)!r}).open('a') as file:\n"
        "        file.write('x')\n"
        f"    while not Path({str(go)!r}).exists():\n"
        "        time.sleep(0.02)\n"
        "    return resolve('127.0.0.1', *arguments, **more)\n"
        "socket.getaddrinfo = resolve_later\n"
        "upgrade.OPEN_WITHIN = 0.3\n"
    )
    server = central.url.replace("127.0.0.1", "central.example")
    env = {"PYTHONPATH": str(slow), "NO_PROXY": "*"}
    daemons = [start(server=server, registered=False, env=env)]
    central.wait_for(lambda: asked.exists() and len(asked.read_text()) >= 2)
    assert not [line for line in daemons[0].status()["ready"]["reasons"] if "disk" in line]
    # A thread that hangs does not hold the exit.
    daemons[0].process.terminate()
    assert daemons[0].process.wait(20) == 0
    asked.unlink()
    daemons.append(start(server=server, registered=False, env=env))
    central.wait_for(lambda: asked.exists() and len(asked.read_text()) >= 2)
    go.touch()
    central.wait_for(lambda: central.registered)
    assert "disk" not in "".join(daemon.said for daemon in daemons)
