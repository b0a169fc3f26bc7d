"""The fault suite, ``python -m tests.faults``: many runs on a real Airflow, each with a fault, held to account."""

from __future__ import annotations

import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults import namespace
from tests.faults.catalogue import BY_NAME, FAULTS, Fault
from tests.faults.central import Central
from tests.faults.certificates import Authority
from tests.faults.judgement import Outcome
from tests.faults.link import Links
from tests.faults.report import store, table
from tests.faults.sites import Site
from tests.faults.trial import run

RESULT = Path(".faults") / "result.json"
AGAIN = "-again"
"""Ends the seed of a run that is drawn in place of one that its fault has missed; there is one such."""


def main() -> None:
    """Run, print the table and store the result; the exit code is 1 if anything was lost, doubled or needed a hand."""
    parser = ArgumentParser("tests.faults", description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=len(FAULTS), help="runs in all; each fault has its turn")
    parser.add_argument("--sites", type=int, default=4, help="sites at work at the same time, 8 at most")
    parser.add_argument("--seed", default="", help="of all that is random; default: another each time")
    parser.add_argument("--only", default="", metavar="A,B", help="these faults alone")
    parser.add_argument("--list", action="store_true", help="show the faults, and which can be had here")
    parser.add_argument("--keep", action="store_true", help="leave all files for a look, and say where")
    chosen = parser.parse_args()
    names = [name.strip() for name in chosen.only.split(",") if name.strip()] or list(BY_NAME)
    if unknown := [name for name in names if name not in BY_NAME]:
        parser.error(f"there is no fault {', '.join(unknown)}; --list shows them")
    if not 1 <= chosen.sites <= 8 or chosen.runs < 1:
        parser.error("--sites is 1 to 8, --runs at least 1")
    why_not = {name: BY_NAME[name].why_not() for name in names}
    if chosen.list:
        for name in names:
            print(f"{name:<14}{BY_NAME[name].injected}" + (f"  [not here: {why_not[name]}]" if why_not[name] else ""))
        return
    for name in names:
        if why_not[name]:
            print(f"{name}: not run: {why_not[name]}", file=sys.stderr)
    faults = [BY_NAME[name] for name in names if not why_not[name]]
    if not faults:
        parser.error("none of these faults can be injected here")
    seed = chosen.seed or str(random.randrange(10**6))
    outcomes = execute(faults, runs=chosen.runs, sites=chosen.sites, seed=seed, keep=chosen.keep)
    store(outcomes, {"seed": seed, "not_run": {n: w for n, w in why_not.items() if w}}, RESULT)
    print(f"\n{table(outcomes)}\n\nseed {seed}; every run: {RESULT}")
    sys.exit(not all(outcome.right for outcome in outcomes))


def execute(faults: Sequence[Fault], *, runs: int, sites: int, seed: str, keep: bool = False) -> list[Outcome]:
    """Return the outcomes of runs in which the faults have turns, on so many sites of one Airflow."""
    folder = Path(tempfile.mkdtemp(prefix="edge-faults-"))
    # Site folders are below, and a worker's state folder holds a Unix socket: an absolute path, not a long one.
    central, links, started = Central(folder), Links(), []
    try:
        authority = Authority(folder)
        central.start(sites)
        isolated = namespace.why_not() is None
        for number in range(sites):
            started.append(Site(number, central, authority, links, isolated))
            started[-1].start()
        for site in started:
            site.wait_back(120)
        return _share(started, _plan(faults, runs, seed))
    finally:
        for site in started:
            site.stop()
        left = central.stop()
        links.close()
        if keep:
            print(f"files: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        if left:
            print("left over, and killed:", *left, sep="\n  ", file=sys.stderr)


def _plan(faults: Sequence[Fault], runs: int, seed: str) -> list[tuple[Fault, str]]:
    """Return each run's fault and seed, in random order."""
    planned = [(faults[number % len(faults)], f"{seed}-{number}") for number in range(runs)]
    random.Random(seed).shuffle(planned)
    return [(fault, f"{own}-{fault.name}") for fault, own in planned]


def _share(sites: Sequence[Site], planned: Sequence[tuple[Fault, str]]) -> list[Outcome]:
    """Have the sites do the runs, each as soon as it is done with its last."""
    waiting: queue.SimpleQueue[tuple[Fault, str]] = queue.SimpleQueue()
    for item in planned:
        waiting.put(item)
    outcomes: list[Outcome] = []
    began = time.monotonic()

    def work(site: Site) -> None:
        while True:
            try:
                fault, seed = waiting.get_nowait()
            except queue.Empty:
                return
            outcome = run(site, fault, seed)
            outcomes.append(outcome)
            if outcome.missed and not seed.endswith(AGAIN):
                waiting.put((fault, seed + AGAIN))
            verdict = "not injected" if outcome.missed else "right"
            if not outcome.right:
                verdict = "WRONG: " + "; ".join(outcome.notes)
            done = f"{len(outcomes)}/{len(planned)}"
            print(f"{time.monotonic() - began:7.0f} s {done:>8} {site.name} {seed}: {verdict}", flush=True)

    threads = [threading.Thread(target=work, args=(site,), name=f"runs-{site.name}", daemon=True) for site in sites]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        # The runs under way fail as soon as their sites are gone; there are no more.
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        raise
    return outcomes


if __name__ == "__main__":
    main()
