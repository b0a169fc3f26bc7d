"""Jobs over the channel, on every database: offers, reports, slots, and what a broken connection leaves."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import pytest
from channels import now, queue, state, wait_for
from served import new_token

from edge_otel.messages import Decline, Ended
from edge_otel.models import jobs, upkeep
from edge_otel.models.tables import Job
from edge_otel.state import JobState, WorkerState


def test_a_job_goes_from_the_queue_to_its_end(connect, database):
    far = connect()
    assert far.beat().state is WorkerState.IDLE
    job_id = queue(database, slots=2, carrier={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
    offer = far.hear("job")
    assert (str(offer.task_instance_id), offer.claim, offer.concurrency_slots) == (job_id, 1, 2)
    assert offer.command == {"type": "ExecuteTask"}
    assert offer.carrier["traceparent"].startswith("00-aaaa")
    assert state(database, job_id) is JobState.ASSIGNED
    assert far.accept(offer).type == "confirmed"
    assert state(database, job_id) is JobState.RUNNING
    assert far.end(offer, exit_code=0, log_length=0).type == "state_ack"
    with database() as session:
        job = session.get(Job, job_id)
        assert (job.state, job.exit_code, job.worker, job.log_ends["1"]) == (JobState.SUCCESS, 0, "w", [0, None])


def test_a_report_said_twice_is_answered_twice_alike(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    assert [far.accept(offer).type for _ in range(2)] == ["confirmed"] * 2
    assert [far.end(offer, "failed", error="why").type for _ in range(2)] == ["state_ack"] * 2
    assert far.accept(offer).type == "stale"
    assert state(database, job_id) is JobState.FAILED


def test_a_report_under_another_claim_is_stale_and_changes_nothing(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    assert far.accept(offer.model_copy(update={"claim": 2})).type == "stale"
    assert far.end(offer.model_copy(update={"claim": 0})).type == "stale"
    assert state(database, job_id) is JobState.ASSIGNED


def test_another_workers_job_is_stale(connect, database):
    other = connect(name="v", token=new_token("v"))
    job_id = queue(database)
    offer = other.hear("job")
    far = connect()
    assert far.accept(offer).type == "stale"
    assert far.end(offer).type == "stale"
    assert state(database, job_id) is JobState.ASSIGNED


def test_a_declined_job_is_offered_to_another_worker(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    far.say(Decline(id=offer.task_instance_id, claim=offer.claim, reason="no room"))
    wait_for(lambda: state(database, job_id) is JobState.QUEUED, "the job to return")
    other = connect(name="v", token=new_token("v"))
    assert other.hear("job").claim == 2
    # Who declined is offered nothing until it has reported anew.
    second = queue(database)
    assert str(other.hear("job").task_instance_id) == second


def test_a_worker_that_declined_is_offered_jobs_again_after_its_next_report(connect, database):
    far = connect()
    queue(database)
    offer = far.hear("job")
    far.say(Decline(id=offer.task_instance_id, claim=offer.claim))
    far.beat()
    assert far.hear("job").claim == 2


def test_an_offer_returns_at_once_when_the_connection_breaks(connect, database):
    far = connect()
    job_id = queue(database)
    far.hear("job")
    far.close()
    wait_for(lambda: state(database, job_id) is JobState.QUEUED, "the job to return")
    assert connect().hear("job").claim == 2


def test_a_running_job_outlives_its_connection(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    far.accept(offer)
    far.close()
    again = connect(session=far.session, state="running", jobs=[{"id": job_id, "claim": 1, "slots": 1}])
    assert again.end(offer).type == "state_ack"
    assert state(database, job_id) is JobState.SUCCESS


def test_slots_are_never_exceeded_and_a_freed_one_is_filled_at_once(connect, database):
    far = connect()
    ids = [queue(database, slots=2) for _ in range(3)]
    first, second = far.hear("job"), far.hear("job")
    far.accept(first)
    far.accept(second)
    held = [{"id": str(offer.task_instance_id), "claim": 1, "slots": 2} for offer in (first, second)]
    far.beat("running", jobs=held)
    assert [state(database, job_id) for job_id in ids].count(JobState.QUEUED) == 1
    far.say(Ended.model_validate({"id": first.task_instance_id, "claim": 1, "state": "success"}))
    assert {far.hear().type, far.hear().type} == {"state_ack", "job"}


def test_jobs_that_a_worker_brings_along_hold_their_slots(connect, database):
    job_id = queue(database, slots=3)
    far = connect()
    far.accept(far.hear("job"))
    far.close()
    again = connect(session=far.session, state="running", jobs=[{"id": job_id, "claim": 1, "slots": 3}])
    queue(database, slots=2)
    small = queue(database, slots=1)
    assert str(again.hear("job").task_instance_id) == small


def test_a_worker_that_comes_without_a_job_it_was_offered_frees_it_at_once(
    connect, database, channel_api, token, start_api
):
    far = connect()
    job_id = queue(database)
    far.hear("job")
    # Over another server, while the first still thinks that it has the connection.
    again = connect(to=start_api(channels=True), session=far.session, state="idle")
    assert again.hear("job").claim == 2
    assert far.hear("bye").reason
    assert state(database, job_id) is JobState.ASSIGNED


def test_jobs_that_are_not_the_workers_any_more_are_stale_at_hello(connect, database):
    far = connect()
    gone, theirs, mine, finished = (queue(database) for _ in range(4))
    for _ in range(4):
        far.accept(far.hear("job"))
    with database() as session:
        upkeep.withdraw(session, gone, now())
        jobs.lock(session, theirs).worker = "v"
    far.close()
    missing = str(uuid4())
    running = [{"id": id_, "claim": 1, "slots": 1} for id_ in (gone, theirs, mine, missing)]
    again = connect(session=far.session, state="running", jobs=[*running, {"id": finished, "claim": 1}])
    assert {str(again.hear("stale").id) for _ in range(3)} == {gone, theirs, missing}
    assert again.end(SimpleNamespace(task_instance_id=mine, claim=1)).type == "state_ack"


def test_a_withdrawn_job_is_cancelled(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    far.accept(offer)
    far.beat("running", jobs=[{"id": job_id, "claim": 1, "slots": 1}])
    with database() as session:
        upkeep.withdraw(session, job_id, now())
    cancel = far.hear("cancel")
    assert (str(cancel.id), cancel.claim) == (job_id, 1)
    assert far.end(offer, "failed").type == "stale"


def test_an_offer_that_a_report_speaks_of_already_is_counted_once(connect, database):
    far = connect()
    first = queue(database, slots=2)
    offer = far.hear("job")
    far.beat("running", jobs=[{"id": first, "claim": 1, "slots": 2}])
    second = queue(database, slots=2)
    assert str(far.hear("job").task_instance_id) == second
    assert far.accept(offer).type == "confirmed"


def test_an_offer_holds_its_slots_until_it_is_answered(connect, database):
    far = connect()
    queue(database, slots=3)
    far.hear("job")
    queue(database, slots=2)
    with pytest.raises(TimeoutError):
        # Some looks at all workers later.
        far.hear("job", timeout=1.5)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_report_of_free_slots_is_heeded_at_once(connect, database, channel_api):
    far = connect()
    wait_for(lambda: channel_api.app.state.hub.assigner.told, "the database to tell of jobs")
    far.beat("running", jobs=[{"id": str(uuid4()), "claim": 1, "slots": 4}])
    job_id = queue(database)
    far.beat()
    assert str(far.hear("job", timeout=2).task_instance_id) == job_id
