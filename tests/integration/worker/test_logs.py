"""Logs arrive complete, in order and once, whatever happens on the way."""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path

import pytest
from conftest import Start, finished, workload
from fake_server import CUT, CUT_AFTER, PAGE, Answer, Call, FakeCentral, FakeJob, refusal

# Logs go by HTTP whatever the transport is.
pytestmark = pytest.mark.parametrize("transport", ["channel"])

LINES = "for i in range(400): log(b'%06d ' % i + bytes(65 + (i * j) % 26 for j in range(70)) + b'\\n')"
EXPECTED = b"".join(b"%06d " % i + bytes(65 + (i * j) % 26 for j in range(70)) + b"\n" for i in range(400))


def is_log(call: Call) -> bool:
    return call.path.endswith("/log") and call.method == "PATCH"


def test_log_survives_errors_cuts_and_lost_answers_byte_for_byte(central: FakeCentral, start: Start) -> None:
    mishaps = itertools.cycle([Answer(500), CUT, CUT_AFTER, None, Answer(429, headers={"Retry-After": "0"}), None])
    central.faults.append(lambda call: next(mishaps) if is_log(call) else None)
    start()
    job = central.offer(workload(LINES))
    central.wait_for(finished(job))
    assert bytes(job.log) == EXPECTED


def test_server_that_lost_bytes_gets_them_again(central: FakeCentral, start: Start) -> None:
    start()
    rewound: list[int] = []
    jobs: list[FakeJob] = []

    def forget(call: Call) -> None:
        if is_log(call) and jobs and len(jobs[0].log) > 9000 and len(rewound) < 2:
            rewound.append(len(jobs[0].log))
            del jobs[0].log[random.randrange(100, 5000) :]

    central.faults.append(forget)
    jobs.append(central.offer(workload(LINES)))
    central.wait_for(finished(jobs[0]))
    assert len(rewound) == 2
    assert bytes(jobs[0].log) == EXPECTED


def test_log_is_live_while_the_task_runs(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    start()
    job = central.offer(workload(f"log(b'one\\n'); wait_for_file({str(go)!r}); log(b'two\\n')"))
    central.wait_for(lambda: bytes(job.log) == b"one\n")
    assert job.end is None
    go.touch()
    central.wait_for(finished(job))


def test_chunks_keep_to_the_size_asked_for_and_are_compressed(central: FakeCentral, start: Start) -> None:
    start()
    job = central.offer(workload("log(b'all work and no play\\n' * 2000)"))
    central.wait_for(finished(job))
    sent = [call for call in central.calls if is_log(call)]
    assert len(sent) == -(-len(job.log) // 4096)
    assert all(call.headers.get("content-encoding") == "gzip" for call in sent[:-1])
    assert sum(len(call.body) for call in sent) < len(job.log) / 10


@pytest.mark.parametrize("too_large", [refusal(413, "TooLarge"), Answer(413, raw=b"<html>nginx</html>")])
def test_smaller_chunks_follow_when_one_is_too_large(central: FakeCentral, start: Start, too_large: Answer) -> None:
    def limit(call: Call) -> Answer | None:
        if is_log(call):
            first, last = call.headers["content-range"].removeprefix("bytes ").removesuffix("/*").split("-")
            if int(last) - int(first) >= 1500:
                return too_large
        return None

    central.faults.append(limit)
    start()
    job = central.offer(workload("log(b'z' * 10000)"))
    central.wait_for(finished(job))


def test_smaller_requests_follow_where_the_network_carries_none_so_large(central: FakeCentral, start: Start) -> None:
    central.settings["log_chunk_bytes"] = 1024 * 1024
    central.faults.append(lambda call: CUT if is_log(call) and len(call.body) > 50_000 else None)
    start()
    job = central.offer(workload("log(os.urandom(400_000))"))
    central.wait_for(finished(job))
    assert len(job.log) == 400_000


def test_log_that_is_refused_does_not_hold_the_jobs_end(central: FakeCentral, start: Start) -> None:
    central.faults.append(lambda call: refusal(422, "BadInput") if call.path.endswith("/log") else None)
    daemon = start()
    job = central.offer(workload("log(b'x')"))
    central.wait_for(lambda: job.end is not None)
    central.wait_for(lambda: daemon.folders() == [])
    assert job.state == "success"


def test_log_calls_that_fail_for_ever_do_not_hold_the_jobs_end(central: FakeCentral, start: Start) -> None:
    central.faults.append(lambda call: Answer(500) if call.path.endswith("/log") else None)
    daemon = start()
    job = central.offer(workload("log(b'x')"))
    central.wait_for(lambda: job.end is not None)
    central.wait_for(lambda: central.last()["state"] == "idle")
    assert daemon.folders()
    central.faults.clear()
    central.wait_for(finished(job))


def test_rest_of_a_log_is_shipped_by_the_next_daemon_from_the_servers_cursor(
    central: FakeCentral, start: Start
) -> None:
    central.faults.append(lambda call: CUT if is_log(call) and "bytes 8192-" in call.headers["content-range"] else None)
    first = start()
    job = central.offer(workload(LINES))
    central.wait_for(lambda: job.end is not None and len(job.log) == 8192)
    first.process.kill()
    first.process.wait(10)
    central.faults.clear()
    seen = len(central.calls)
    start()
    central.wait_for(finished(job))
    later = [call for call in central.calls[seen:] if is_log(call)]
    assert later[0].headers["content-range"].startswith("bytes 8192-")
    assert bytes(job.log) == EXPECTED


def test_log_that_loses_bytes_after_its_end_was_told_is_told_again_as_it_ends_now(
    central: FakeCentral, start: Start
) -> None:
    away = [Answer(503)]
    central.faults.append(lambda call: away[0] if away and call.path.endswith("/log") else None)
    daemon = start()
    job = central.offer(workload("log(b'x' * 9000)"))
    end = central.wait_for(lambda: job.end)
    assert end["log_length"] == 9000
    os.truncate(daemon.folders()[0] / "logs/dag_id=d/attempt=1.log", 5000)
    away.clear()
    central.wait_for(lambda: daemon.folders() == [])
    # Some more may have been on its way already.
    kept, *rest = bytes(job.log).splitlines()
    assert kept == b"x" * len(kept)
    assert 5000 <= len(kept) < 9000
    said = [json.loads(line)["event"] for line in rest if line]
    assert said
    assert all("missing" in event and "has fewer" not in event for event in said)
    assert job.end is not end
    assert (job.end or {})["log_length"] == len(job.log)


def test_first_line_is_sent_within_two_seconds_of_being_written(central: FakeCentral, start: Start) -> None:
    central.settings["log_interval"] = 60.0
    start()
    job = central.offer(workload("time.sleep(0.5); log(b'%f' % time.monotonic()); time.sleep(60)"))
    sent = central.wait_for(lambda: next((call for call in central.calls if is_log(call)), None))
    assert sent.time - float(job.log) < 2.0


def test_senseless_answers_are_not_believed(central: FakeCentral, start: Start) -> None:
    mishaps = itertools.cycle(
        [
            Answer(202, headers={"Range": "bytes=0-99999999999"}),
            Answer(200, raw=b"<html>logged in</html>"),
            None,
            Answer(202, headers={"Range": "all of them"}),
            Answer(416, headers={"Range": "bytes=0-99999999999"}),
            None,
        ]
    )
    central.faults.append(lambda call: next(mishaps) if is_log(call) else None)
    start()
    job = central.offer(workload("log(bytes(range(256)) * 48)"))
    central.wait_for(finished(job))
    assert bytes(job.log) == bytes(range(256)) * 48


def test_log_that_is_rotated_and_removed_while_the_server_is_away_is_shipped_whole(
    central: FakeCentral, start: Start
) -> None:
    central.faults.append(lambda call: Answer(503) if is_log(call) else None)
    start(log_interval=0.05)
    pause = "time.sleep(1)"
    path = "path = Path(os.environ['AIRFLOW__LOGGING__BASE_LOG_FOLDER']) / workload['log_path']"
    do = f"{path}; log(b'one\\n'); {pause}; path.rename(f'{{path}}.1'); log(b'two\\n'); {pause}; path.unlink()"
    job = central.offer(workload(do))
    central.wait_for(lambda: job.end is not None)
    central.faults.clear()
    central.wait_for(finished(job))
    assert bytes(job.log) == b"one\ntwo\n"


def test_file_that_is_emptied_while_an_answer_is_lost_costs_no_byte_that_was_stored(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    mishaps = itertools.chain([CUT_AFTER], itertools.repeat(Answer(503)))
    central.faults.append(lambda call: next(mishaps) if is_log(call) else None)
    start(log_interval=0.05)
    path = "path = Path(os.environ['AIRFLOW__LOGGING__BASE_LOG_FOLDER']) / workload['log_path']"
    go = tmp_path / "go"
    do = f"{path}; log(b'one\\n' * 30); wait_for_file({str(go)!r}); os.truncate(path, 0); log(b'two\\n')"
    job = central.offer(workload(do))
    central.wait_for(lambda: len(job.log) == 120)
    go.touch()
    central.wait_for(lambda: job.end is not None)
    pages = iter([PAGE])
    central.faults[:] = [lambda call: next(pages, None) if call.method == "HEAD" else None]
    central.wait_for(lambda: job.end is not None and len(job.log) == job.end["log_length"])
    assert next(pages, None) is None
    lines = bytes(job.log).decode().splitlines()
    assert lines[:30] == ["one"] * 30
    assert "cut here" in json.loads(lines[30])["event"]
    assert lines[31:] == ["two"]


def test_rate_bounds_what_all_logs_send_and_none_waits_for_the_end_of_another(
    central: FakeCentral, start: Start
) -> None:
    start(log_rate=20)
    long = central.offer(workload("log(os.urandom(60_000))"))
    central.wait_for(lambda: len(long.log) > 4096)
    short = central.offer(workload("log(b'short')"))
    central.wait_for(finished(short))
    assert not finished(long)()
    central.wait_for(finished(long))
    times = [call.time for call in central.calls if is_log(call)]
    # The first goes at once, and two at a time may be on their way.
    assert times[-1] - times[0] > (60_000 - 3 * 4096) / (20 * 1024)
