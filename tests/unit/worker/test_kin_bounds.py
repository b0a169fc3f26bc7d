"""A record that names no process, or a number that stands for many, never makes the machine's processes a job's."""

from __future__ import annotations

import pytest
from edge_worker import kin
from edge_worker.journal import JobFolder, Started
from edge_worker.kin import Seen


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_no_process_belongs_to_a_job_without_a_process(pid):
    identity = f"{kin.boot() or 'started'}:1"
    table = {n: Seen(n, n // 2, 0 if n < 5 else 1, identity, True, 0) for n in range(1, 20)}
    assert kin.of_job(Started(pid, identity, 0.0), lambda _: True, table) == []


@pytest.mark.parametrize("pid", ["-1", "0", "1", "true", "null", '"7"', "7.5"])
def test_a_record_with_a_number_that_is_no_process_is_not_readable(tmp_path, pid):
    (tmp_path / "process.json").write_text(f'{{"pid": {pid}, "identity": "", "time": 1}}')
    with pytest.raises(ValueError, match=r"process\.json: pid: "):
        JobFolder(tmp_path).started()
