"""A network namespace with nothing but its loopback, and what may go wrong there, with real packets."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

CLONE_NEWNET = 0x40000000


def why_not() -> str | None:
    """Return why no namespace can be had here, or None."""
    if os.name == "nt" or os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("nft", "nftables"), ("tc", "iproute2")):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    name = f"edge-faults-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not permitted: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


class Namespace:
    """One network namespace. ``enter`` goes before the command that is to run in it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.enter = ["nsenter", f"--net=/run/netns/{name}", "--"]
        _run("ip", "netns", "add", name)
        _run(*self.enter, "ip", "link", "set", "lo", "up")

    def listen(self) -> socket.socket:
        """Return a socket that listens in the namespace, on a port of its loopback."""
        found: list[socket.socket] = []

        def listen() -> None:
            # A thread of its own, which ends there: nothing else gets into the namespace.
            with Path(f"/run/netns/{self._name}").open("rb") as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
                found.append(socket.create_server(("127.0.0.1", 0)))

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        return found[0]

    def drop(self, port: int, percent: int, *, there: bool = True, back: bool = True) -> None:
        """Lose this share of the packets to a port, on their way there, back, or both."""
        ways = [way for way, wanted in (("dport", there), ("sport", back)) if wanted]
        share = f"numgen random mod 100 < {percent} " if percent < 100 else ""
        rules = [f'iifname "lo" tcp {way} {port} {share}drop' for way in ways]
        chain = ["table inet faults {", "chain input {", "type filter hook input priority 0", *rules, "}", "}"]
        _run(*self.enter, "nft", "-f", "-", text="\n".join(chain))

    def limit(self, bytes_a_second: int) -> None:
        """Let no more than this through, of all traffic together."""
        rate = f"{bytes_a_second * 8}bit"
        _run(
            *self.enter,
            "tc",
            "qdisc",
            "add",
            "dev",
            "lo",
            "root",
            "tbf",
            "rate",
            rate,
            "burst",
            "80kb",
            "latency",
            "3s",
        )

    def heal(self) -> None:
        """Let everything through again."""
        _run(*self.enter, "nft", "flush", "ruleset")
        subprocess.run([*self.enter, "tc", "qdisc", "del", "dev", "lo", "root"], capture_output=True, check=False)

    def close(self) -> None:
        """Remove it."""
        _run("ip", "netns", "delete", self._name)


def _run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
