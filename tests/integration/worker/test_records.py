"""What a machine that lost its power leaves behind: restarted, half written, or nothing that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from conftest import Daemon, Start, finished, gone, workload
from fake_server import FakeCentral, FakeJob

pytestmark = pytest.mark.parametrize("transport", ["channel"])

OFFER, PROCESS, REPORT = "offer.json", "process.json", "report.json"


def running(central: FakeCentral, start: Start, folder: Path, do: str = "") -> tuple[FakeJob, Path, Daemon]:
    """Return a job that runs until the file ``go`` is there, its folder, and the daemon, which was killed."""
    daemon = start()
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(folder / 'go')!r}); log(b'done\\n'){do}"))
    central.wait_for(lambda: job.log)
    daemon.process.kill()
    daemon.process.wait(10)
    (found,) = daemon.folders()
    return job, found, daemon


def supervisor(folder: Path) -> psutil.Process:
    return psutil.Process(json.loads((folder / PROCESS).read_text())["pid"])


def power_cut(folder: Path) -> None:
    """Have the job's process end without a word, under another run of the machine."""
    process = supervisor(folder)
    process.kill()
    process.wait(10)
    record = json.loads((folder / PROCESS).read_text())
    ticks = record["identity"].rpartition(":")[2]
    record["identity"] = f"00000000-1111-2222-3333-444444444444:{ticks}"
    (folder / PROCESS).write_text(json.dumps(record))


def test_a_restarted_machine_is_recognised_and_told(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    job, folder, _ = running(central, start, tmp_path)
    power_cut(folder)
    again = start()
    central.wait_for(finished(job))
    assert (job.state, job.end and job.end["error"]) == ("failed", "The machine was restarted while the task ran.")
    assert b"The machine was restarted" in job.log
    assert bytes(job.log).startswith(b"begun")
    central.wait_for(lambda: again.folders() == [])


@pytest.mark.parametrize("content", ["", "{half", "[]", "\x00" * 400], ids=["empty", "half", "other", "zeros"])
def test_a_ticket_that_cannot_be_read_does_not_end_a_job_that_runs(
    central: FakeCentral, start: Start, tmp_path: Path, content: str
) -> None:
    job, folder, _ = running(central, start, tmp_path)
    (folder / OFFER).write_text(content)
    again = start()
    central.wait_for(lambda: again.pid and f"{job.id}: adopted" in again.said)
    (tmp_path / "go").touch()
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"begun\ndone\n")
    assert "its records are not readable" in again.said
    assert list((again.state_dir / "broken").iterdir())
    central.wait_for(lambda: again.folders() == [])


def test_a_ticket_that_cannot_be_read_after_a_power_cut_is_told(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    job, folder, _ = running(central, start, tmp_path)
    power_cut(folder)
    (folder / OFFER).write_text("")
    again = start()
    central.wait_for(lambda: job.end)
    assert job.state == "failed"
    assert "Its records at the site were not readable; they were moved to" in str(job.end and job.end["error"])
    central.wait_for(lambda: again.folders() == [])
    (aside,) = (again.state_dir / "broken").iterdir()
    assert (aside / PROCESS).exists()
    assert not (aside / "workload.json").exists()


def test_a_process_that_nobody_can_watch_any_more_is_killed_and_told(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    job, folder, _ = running(central, start, tmp_path)
    process = supervisor(folder)
    (folder / PROCESS).write_text("")
    start()
    central.wait_for(finished(job))
    assert job.state == "failed"
    assert "Its process was killed." in str(job.end and job.end["error"])
    assert gone(process)


def test_a_report_that_cannot_be_read_is_judged_anew(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    job, folder, _ = running(central, start, tmp_path)
    (tmp_path / "go").touch()
    central.wait_for((folder / "result.json").exists)
    (folder / REPORT).write_text("{half")
    start()
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"begun\ndone\n")


def test_an_offer_that_was_never_written_down_whole_is_only_set_aside(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    offered = tmp_path / "state" / "jobs" / "00000000-0000-0000-0000-000000000001-1"
    offered.mkdir(parents=True)
    (offered / "workload.json").write_text("secret")
    daemon = start()
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    assert not any("00000000-0000-0000-0000-000000000001" in call.path for call in central.calls)
    (aside,) = (daemon.state_dir / "broken").iterdir()
    assert list(aside.iterdir()) == []


WRONG = {
    "no id": (OFFER, {"id": None}),
    "slots": (OFFER, {"slots": "x"}),
    "confirmed": (OFFER, {"confirmed_at": None}),
    "log": (OFFER, {"log_path": 7}),
    "context": (OFFER, {"span": {"traceparent": 5}}),
    "pid": (PROCESS, {"pid": 2**70}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_record_of_which_one_value_is_wrong_does_not_end_the_daemon(
    central: FakeCentral, start: Start, tmp_path: Path, wrong: str
) -> None:
    job, folder, _ = running(central, start, tmp_path)
    name, change = WRONG[wrong]
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**record, **change}))
    again = start()
    central.wait_for(lambda: "its records are not readable" in again.said)
    (tmp_path / "go").touch()
    central.wait_for(finished(job))
    assert job.state == ("failed" if name == PROCESS else "success")
    other = central.offer(workload("pass"))
    central.wait_for(finished(other))
    assert again.exit_code() is None


def test_what_is_no_folder_is_set_aside(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    jobs = tmp_path / "state" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "file").touch()
    (jobs / "00000000-0000-0000-0000-000000000001-1").touch()
    (jobs / "loop").symlink_to("loop")
    daemon = start()
    central.wait_for(lambda: daemon.folders() == [])
    assert len(list((daemon.state_dir / "broken").iterdir())) == 3
