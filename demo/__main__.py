"""``make demo``: from nothing to a DAG that ran at a remote site."""

from __future__ import annotations

import argparse
import fcntl
import math
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from demo import show
from demo.process import Ended
from demo.story import Story, Unfit, Wishes, require_free
from demo.wait import NotSeen

FOLDER = Path(".demo")
WRONG, UNFIT, STOPPED = 1, 2, 130


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="make demo ARGS='…'",
        description="Start a whole Airflow with one edge worker on this machine's loopback interface, run a DAG on it, "
        "and show the task states, a log and the trace. It stays up until Ctrl-C.",
        epilog="Everything is written below .demo/, which is emptied first. Component logs are in .demo/logs/.",
    )
    parser.add_argument("--once", action="store_true", help="end after the run; exit 0 only if all of it was right")
    parser.add_argument("--port", type=int, default=8080, help="port of the API server and UI (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="use SQLite instead of a PostgreSQL of the demo's own")
    parser.add_argument(
        "--keep", action="store_true", help="leave .demo/ there at the end; it is left after a failure too"
    )
    wishes = parser.parse_args(given)
    if not 1 <= wishes.port <= 65535:
        parser.error("--port must be between 1 and 65535")
    return wishes


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Empty the folder and hold it, so that two demos never work in one.

    :raises Unfit: while another demo holds it
    """
    folder.mkdir(exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Unfit(f"Another demo runs in {folder}; stop it first (Ctrl-C where it runs).") from None
    else:
        empty(folder)
        yield
    finally:
        os.close(held)


def empty(folder: Path) -> None:
    """Remove what is in the folder, and keep the folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def perform(wishes: argparse.Namespace, steps: show.Steps) -> int:
    """Play the whole demo and return its exit code."""
    folder = FOLDER.absolute()
    require_free(wishes.port)
    with sole_use(folder):
        with Story(Wishes(folder, wishes.port, wishes.sqlite), steps) as story:
            story.start()
            wrong = story.run()
            show.title("Wrong" if wrong else "All of it was right")
            for line in wrong:
                print(f"  {line}")
            print(f"UI: {story.cluster.url} (no login: everyone who reaches this loopback port is an administrator)")
            if not wishes.once:
                print("Ctrl-C stops everything.", flush=True)
                with suppress(KeyboardInterrupt):
                    story.cluster.wait(lambda: False, "Ctrl-C", math.inf)
        wrong += [f"left over and killed: {line}" for line in story.left]
        if wrong:
            print(f"Not as expected: {'; '.join(wrong)}. The logs are in {folder / 'logs'}.", file=sys.stderr)
            return WRONG
        if not wishes.keep:
            empty(folder)
            folder.rmdir()
    return 0


def interrupt(*_: object) -> None:
    """End the demo in order."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo and turn every expected failure into one clear message."""
    wishes = arguments()
    sys.stdout.reconfigure(line_buffering=True)
    # A shell's background job starts with SIGINT ignored.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, interrupt)
    steps = show.Steps()
    try:
        return perform(wishes, steps)
    except Unfit as unfit:
        print(unfit, file=sys.stderr)
        return UNFIT
    except (Ended, NotSeen) as failure:
        print(f"The demo failed. {failure}\nAll logs are in {FOLDER.absolute() / 'logs'}.", file=sys.stderr)
        return WRONG
    except BrokenPipeError:
        # Whoever read our output is gone, as with `| head`: everything is stopped, and there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED
    except KeyboardInterrupt:
        steps.say("Stopped.")
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
