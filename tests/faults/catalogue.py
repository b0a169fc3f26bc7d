"""The faults: each begins and ends by itself, at a site or at the centre, at a time that the run has drawn."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import psutil

from demo.process import Ended
from demo.wait import NotSeen, wait_for
from tests.faults import namespace
from tests.faults.judgement import Try
from tests.faults.link import Answer, http
from tests.faults.sites import FAKETIME, Site

PAGE = b"<html><body>Please log in to the guest network</body></html>"
GARBAGE = http("200 OK", PAGE, headers="Content-Type: text/html\r\n")
Whose = TypeVar("Whose")
Inject = Callable[[Site, random.Random], AbstractSet[Try] | None]
"""Returns the tries that it has killed, if it kills any; raises NotInjected."""
SOMEBODY_WITHIN = 30.0
"""Seconds in which there is somebody to kill."""

LEFT_WITHIN = 60.0
"""Seconds in which a worker that is stopped has left."""


class NotInjected(Exception):
    """There was nobody whom the fault could meet."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    injected: str
    inject: Inject
    manner: str = "work"
    """What the first try of one of the tasks does; see the DAG."""
    at_work: bool = False
    """Its moment is one of a task's: later there is nobody whom it could meet."""
    destroys: bool = False
    """It removes task logs; the centre must say so where they are missing."""
    central: bool = False
    """At the centre, hence one at a time."""
    why_not: Callable[[], str | None] = lambda: None
    """Returns why it cannot be injected on this machine, or None."""


def _hold(draw: random.Random, least: float, most: float) -> None:
    time.sleep(draw.uniform(least, most))


def _no_faketime() -> str | None:
    return None if FAKETIME.exists() else "faketime is not installed: apt-get install faketime"


def kill_daemon(site: Site, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 3)):
        site.kill(draw.uniform(0, 2))
        _hold(draw, 0, 2)


def kill_zygote(site: Site, draw: random.Random) -> None:
    kill_one(lambda: [("zygote", process)] if (process := site.zygote()) else [], draw)


def kill_supervisor(site: Site, draw: random.Random) -> AbstractSet[Try]:
    return {kill_one(site.supervisors, draw)}


def kill_task(site: Site, draw: random.Random) -> AbstractSet[Try]:
    return {kill_one(site.tasks, draw)}


def kill_one(
    look: Callable[[], Sequence[tuple[Whose, psutil.Process]]], draw: random.Random, within: float = SOMEBODY_WITHIN
) -> Whose:
    """Kill one of those who are there, or the next who is; return whose process it was. Raises NotInjected."""

    def kill() -> list[Whose]:
        with suppress(psutil.NoSuchProcess):
            if there := look():
                whose, process = draw.choice(there)
                process.kill()
                return [whose]
        return []

    try:
        return wait_for(kill, "somebody to kill", timeout=within, pause=0.02)[0]
    except NotSeen as nobody:
        raise NotInjected(str(nobody)) from None


def kill_component(name: str) -> Inject:
    return lambda site, draw: site.central.kill(name, draw.uniform(0, 5))


def kill_database(site: Site, draw: random.Random) -> None:
    site.central.kill_database(draw.uniform(0, 4))


def upgrade(site: Site, draw: random.Random) -> None:
    site.upgrade()
    site.command("handover")


def reboot(site: Site, draw: random.Random) -> AbstractSet[Try]:
    with site.down():
        jobs = site.jobs()
        for process in site.everything():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for file in site.state.glob("jobs/*/process.json"):
            # What was started before the machine began anew.
            record = json.loads(file.read_text())
            record["identity"] = f"00000000-0000-0000-0000-000000000000:{record['identity'].partition(':')[2]}"
            file.write_text(json.dumps(record))
        # What had no process yet is started by the next daemon.
        return {one for one, folder in jobs if (folder / "process.json").exists()}


def lose(percent: int, *, there: bool = True, back: bool = True) -> Inject:
    def inject(site: Site, draw: random.Random) -> None:
        assert site.namespace is not None
        site.namespace.drop(site.link.port, percent, there=there, back=back)
        _hold(draw, 4, 20)
        site.namespace.heal()

    return inject


def delay(site: Site, draw: random.Random) -> None:
    site.link.delay = 2.0
    _hold(draw, 5, 15)
    site.link.delay = 0.0


def limit(site: Site, draw: random.Random) -> None:
    assert site.namespace is not None
    site.namespace.limit(50_000)
    _hold(draw, 5, 15)
    site.namespace.heal()


def answer(what: Answer) -> Inject:
    def inject(site: Site, draw: random.Random) -> None:
        site.link.answer = what
        site.link.cut()
        _hold(draw, 3, 15)
        site.link.answer = None
        site.link.cut()

    return inject


def expire_certificate(site: Site, draw: random.Random) -> None:
    site.link.present(expired=True)
    _hold(draw, 3, 15)
    site.link.present(expired=False)


def revoke_token(site: Site, draw: random.Random) -> None:
    name, _, _ = site.token.read_text().partition(".")

    def revoke() -> bool | None:
        with suppress(Ended):
            site.central.cluster.airflow("edge", "token", "revoke", name.removeprefix("ewt_"))
            return True
        return None

    site.central.persist(revoke, "the token to be revoked", 120)
    new = site.central.new_token(site.name)
    site.token.write_text(new)


def set_clock(site: Site, draw: random.Random) -> None:
    """Set it off and right again while the daemon runs, which is one whose clock can be set for this time."""
    site.clock_is_ours = True
    site.command("handover")
    site.wait_back(60)
    site.set_clock(draw.choice([-600, 600]))
    _hold(draw, 5, 15)
    site.set_clock(0)
    _hold(draw, 2, 5)
    site.clock_is_ours = False
    site.command("handover")


def fill_disk(site: Site, draw: random.Random) -> None:
    ballast = site.disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(256 * 1024))
    _hold(draw, 3, 12)
    ballast.unlink()


def lock_disk(site: Site, draw: random.Random) -> None:
    # A second mount on top of the first: one with files that are open for writing cannot be made read-only.
    subprocess.run(["mount", "--bind", site.state, site.state], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", site.state], check=True)
        _hold(draw, 3, 12)
    finally:
        subprocess.run(["umount", "-l", site.state], check=True)


def remove_state(site: Site, draw: random.Random) -> AbstractSet[Try]:
    # What has not taken its workload yet cannot be started any more; what runs goes on.
    waiting = {one for one, folder in site.jobs() if (folder / "workload.json").exists()}
    shutil.rmtree(site.state, ignore_errors=True)
    return waiting


def stop_stubborn(site: Site, draw: random.Random) -> AbstractSet[Try]:
    misbehave(site, draw)
    daemon = site.daemon
    site.command("stop")
    wait_for(lambda: not site.of_site(daemon), "the worker to leave", timeout=LEFT_WITHIN)
    # Others of the run may have been in their last words.
    return site.stopped()


def misbehave(site: Site, draw: random.Random) -> None:
    """Return when a task of the run says that it misbehaves."""
    ledger = site.central.ledger / f"{site.run_id}.jsonl"
    try:
        wait_for(lambda: ledger.exists() and '"misbehaves"' in ledger.read_text(), "a task to misbehave", timeout=120)
    except NotSeen as nobody:
        raise NotInjected(str(nobody)) from None


def nothing(site: Site, draw: random.Random) -> None:
    """Let the task itself be the fault."""


_NETWORK = {"why_not": namespace.why_not}
_CLOCK = {"why_not": _no_faketime}

FAULTS = (
    Fault("none", "nothing", nothing),
    Fault("daemon", "kill -9 of the daemon, up to three times", kill_daemon),
    Fault("zygote", "kill -9 of the zygote", kill_zygote),
    Fault("supervisor", "kill -9 of a job's supervisor", kill_supervisor, at_work=True),
    Fault("task", "kill -9 of a task's process", kill_task, at_work=True),
    Fault("api", "kill -9 of the API server, for up to 5 s", kill_component("api-server"), central=True),
    Fault("scheduler", "kill -9 of the scheduler, for up to 5 s", kill_component("scheduler"), central=True),
    Fault("database", "kill -9 of PostgreSQL, for up to 4 s", kill_database, central=True),
    Fault("upgrade", "daemon of another version takes over", upgrade),
    Fault("reboot", "all processes killed, another boot id", reboot),
    Fault("cut", "no packet either way for 4 to 20 s", lose(100), **_NETWORK),
    Fault("deaf", "no packet to the worker for 4 to 20 s", lose(100, there=False), **_NETWORK),
    Fault("mute", "no packet from the worker for 4 to 20 s", lose(100, back=False), **_NETWORK),
    Fault("loss", "30 % of the packets lost, both ways, for 4 to 20 s", lose(30), **_NETWORK),
    Fault("latency", "2 s later each way, for 5 to 15 s", delay),
    Fault("slow line", "50 kB/s for 5 to 15 s", limit, **_NETWORK),
    Fault("500", "every request answered 500", answer(http("500 Internal Server Error", b"oops"))),
    Fault("503", "every request answered 503", answer(http("503 Service Unavailable", headers="Retry-After: 1\r\n"))),
    Fault("429", "every request answered 429", answer(http("429 Too Many Requests", headers="Retry-After: 2\r\n"))),
    Fault("garbage", "every request answered with a login page, 200", answer(GARBAGE)),
    Fault("no http", "answers are not HTTP", answer(Answer(b"\x00\x01\x02 no\r\n\r\n" * 50))),
    Fault("slow api", "every request answered 504 after 10 s", answer(http("504 Gateway Timeout", after=10.0))),
    Fault("certificate", "the server's certificate has expired", expire_certificate),
    Fault("token", "the worker's token revoked; its file has a new one later", revoke_token),
    Fault("clock", "the daemon's clock 10 minutes off, for 5 to 15 s", set_clock, **_CLOCK),
    Fault("disk full", "no byte free on the state folder's disk", fill_disk, **_NETWORK),
    Fault("read-only", "the state folder read-only for what is opened anew", lock_disk, **_NETWORK),
    Fault("state removed", "the state folder removed", remove_state, destroys=True),
    Fault("memory", "a task takes 4 GB, more than its limit", misbehave, "greedy"),
    Fault("fork bomb", "a task starts some 800 processes, where 150 are allowed", misbehave, "bomb"),
    Fault("stubborn", "a task ignores SIGTERM, and the worker is stopped", stop_stubborn, "stubborn"),
    Fault("left behind", "a task leaves a process behind", nothing, "abandons"),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
