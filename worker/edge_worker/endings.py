"""How jobs end: a pure judgement of what was seen."""

from __future__ import annotations

from dataclasses import dataclass

from edge_worker.exits import in_words

_TASK_FAILED = frozenset({"failed", "up_for_retry"})
_NOT_WANTED = "SERVER_TERMINATED"
"""What Airflow's supervisor calls a task that the API server wanted ended: marked by a user, cleared, timed out."""
_SIGKILL = -9


@dataclass(frozen=True)
class Ending:
    """How a job ended: its state and exit code as reported, the error in words, the outcome for the span."""

    succeeded: bool
    exit_code: int | None
    error: str | None
    outcome: str
    error_type: str | None


def judge_ending(
    exit_code: int | None,
    error: str | None,
    stopped: str | None,
    task_state: str | None,
    out_of_memory: bool = False,
    restarted: bool = False,
) -> Ending:
    """Return the ending of a process: ``exit_code`` as of waitpid, None where nobody saw it.

    ``error`` is what the process said of a failure around the task, ``stopped`` why this daemon ended it,
    ``task_state`` the state in which Airflow's supervisor left the task, where there is one, ``out_of_memory`` whether
    the kernel has killed for that while the job ran: whom is not known, so a SIGKILL that a job got for another reason
    in that time is taken for it; ``restarted`` whether the machine was, since the process began. A task whose code
    failed still ends with 0: Airflow has been
    told, so the job succeeded, but the span has not. One that was killed ends with the signal, also when it was the
    task's process alone: Airflow's supervisor passes that on.
    """
    task_failed = task_state in _TASK_FAILED
    if stopped is not None and (exit_code != 0 or task_failed):
        return Ending(False, exit_code, stopped, "killed", "stopped_by_worker")
    if task_state == _NOT_WANTED and exit_code != 0:
        text = "Airflow ended the task: it was not to run any more."
        return Ending(False, exit_code, text, "killed", "cancelled")
    if exit_code == 0 and task_failed:
        return Ending(True, 0, None, "failed", "task_failed")
    if exit_code == 0:
        return Ending(True, 0, None, "success", None)
    if exit_code is None and error is None and restarted:
        text = "The machine was restarted while the task ran."
        return Ending(False, None, text, "killed", "machine_restarted")
    if out_of_memory and exit_code in (_SIGKILL, None):
        text = "The machine, or the container, ran out of memory, and the kernel killed the task's process."
        return Ending(False, exit_code, text, "killed", "out_of_memory")
    if exit_code is None:
        return Ending(False, None, error or "The task's process ended without a result.", "killed", "result_missing")
    if exit_code < 0:
        text = error or f"The task's process {in_words(exit_code)}."
        return Ending(False, exit_code, text, "killed", f"signal_{-exit_code}")
    if error is not None:
        return Ending(False, exit_code, error, "failed", "supervisor_failed")
    return Ending(False, exit_code, f"The task's process {in_words(exit_code)}.", "failed", "task_failed")


def rose(before: int | None, after: int | None) -> bool:
    """Return whether a counter has risen; one that was not read, or began anew, has not."""
    return before is not None and after is not None and after > before
