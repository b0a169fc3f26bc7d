"""What an administrator does to a running worker, from the centre and at the site."""

from __future__ import annotations

import json

from acceptance.rig import Rig


def test_a_worker_in_maintenance_takes_no_job_until_it_ends(rig: Rig) -> None:
    with rig.running("epsilon") as worker:
        held = rig.trigger("gated", count=1)
        rig.wait_started(held, 1)
        rig.admin("maintenance", "on", "epsilon", "--comment", "new disks")
        rig.wait_worker("epsilon", "maintenance pending")
        waiting = rig.trigger("gated", count=1)
        rig.wait(lambda: rig.jobs(waiting), "the next run's first job to be queued")
        rig.release(held)
        assert rig.finish("gated", held) == "success", "a job that runs already is finished"
        rig.wait_worker("epsilon", "maintenance mode")
        assert [job["state"] for job in rig.jobs(waiting)] == ["queued"]
        assert "new disks" in worker.status()["maintenance"]["comment"]
        rig.admin("maintenance", "off", "epsilon")
        rig.release(waiting)
        assert rig.finish("gated", waiting) == "success"
        rig.wait_worker("epsilon", "idle")


def test_maintenance_is_remembered_over_a_restart(rig: Rig) -> None:
    with rig.running("zeta") as worker:
        rig.admin("maintenance", "on", "zeta", "--comment", "moving house")
        rig.wait_worker("zeta", "maintenance mode")
        rig.cluster.end("zeta")
        rig.wait_worker("zeta", "offline maintenance")
        worker.start()
        rig.wait_worker("zeta", "maintenance mode")
        assert rig.local(worker, "maintenance", "off").returncode == 0
        rig.wait_worker("zeta", "idle")


def test_maintenance_that_is_ended_while_the_worker_is_away_does_not_come_back_with_it(rig: Rig) -> None:
    with rig.running("xi") as worker:
        rig.admin("maintenance", "on", "xi", "--comment", "moving house")
        rig.wait_worker("xi", "maintenance mode")
        rig.admin("shutdown", "xi")
        assert rig.cluster.forget("xi").wait(60) == 0
        rig.wait_worker("xi", "offline maintenance")
        rig.admin("maintenance", "off", "xi")
        rig.wait_worker("xi", "offline")
        worker.start()
        rig.wait_worker("xi", "idle")
        assert worker.status()["maintenance"] is None


def test_a_draining_worker_finishes_its_job_and_takes_no_other(rig: Rig) -> None:
    with rig.running("eta") as worker:
        held = rig.trigger("gated", count=1)
        rig.wait_started(held, 1)
        assert rig.local(worker, "drain").returncode == 0
        rig.wait_worker("eta", "terminating")
        waiting = rig.trigger("gated", count=1)
        rig.wait(lambda: rig.jobs(waiting), "the next run's first job to be queued")
        daemon = rig.cluster.forget("eta")
        rig.release(held)
        assert rig.finish("gated", held) == "success"
        assert daemon.wait(60) == 0
        rig.wait_worker("eta", "offline")
        assert [job["state"] for job in rig.jobs(waiting)] == ["queued"]
        worker.start()
        rig.release(waiting)
        assert rig.finish("gated", waiting) == "success"


def test_a_worker_is_shut_down_from_the_centre(rig: Rig) -> None:
    with rig.running("theta") as worker:
        run_id = rig.trigger("gated", count=1)
        rig.wait_started(run_id, 1)
        rig.admin("shutdown", "theta")
        rig.wait(lambda: worker.status()["draining"], "theta to drain")
        daemon = rig.cluster.forget("theta")
        rig.release(run_id)
        assert daemon.wait(60) == 0
        assert rig.finish("gated", run_id) == "success"
        rig.wait_worker("theta", "offline")


def test_queues_are_changed_at_runtime(rig: Rig) -> None:
    with rig.running("iota"):
        run_id = rig.trigger("elsewhere")
        rig.wait(lambda: rig.jobs(run_id), "the job to be queued")
        assert rig.jobs(run_id)[0]["state"] == "queued"
        rig.admin("queues", "add", "iota", "--queues", "other")
        assert rig.finish("elsewhere", run_id) == "success"
        assert rig.jobs(run_id)[0]["worker"] == "iota"


def test_concurrency_is_changed_at_runtime(rig: Rig) -> None:
    with rig.running("kappa", concurrency=1):
        run_id = rig.trigger("gated", count=3)
        rig.wait_started(run_id, 1)
        rig.wait(lambda: len(rig.jobs(run_id)) == 4, "all jobs to be queued")
        assert rig.started(run_id).total() == 1
        rig.admin("concurrency", "kappa", "3")
        rig.wait_started(run_id, 3)
        rig.release(run_id)
        assert rig.finish("gated", run_id) == "success"
        assert set(rig.started(run_id).values()) == {1}


def test_a_worker_is_asked_by_the_names_of_edge3_at_its_site(rig: Rig) -> None:
    with rig.running("lambda") as worker:
        there = {"AIRFLOW__EDGE__STATE_DIR": str(worker.state_folder)}
        held = rig.trigger("gated", count=1)
        rig.wait_started(held, 1)
        rig.cluster.airflow("edge", "maintenance", "on", "-c", "new disks", **there)
        rig.wait_worker("lambda", "maintenance pending")
        (row,) = json.loads(rig.admin("list", "lambda", "--output", "json"))
        assert (row["maintenance_comment"], row["maintenance_origin"], row["jobs"]) == ("new disks", "local", 1)
        assert json.loads(rig.cluster.airflow("edge", "status", **there))["maintenance"]["comment"] == "new disks"
        rig.cluster.airflow("edge", "maintenance", "off", **there)
        rig.wait_worker("lambda", "running")
        daemon = rig.cluster.forget("lambda")
        rig.cluster.airflow("edge", "stop", **there)
        rig.wait_worker("lambda", "terminating")
        rig.release(held)
        assert daemon.wait(60) == 0
        assert rig.finish("gated", held) == "success"


def test_workers_are_changed_by_a_glob_and_waited_for(rig: Rig) -> None:
    with rig.running("press-1"), rig.running("press-2"), rig.running("oven"):
        printed = rig.admin("maintenance", "on", "press-*", "--yes", "--wait", "--timeout", "60")
        assert printed.splitlines()[-2:] == ["press-1: maintenance mode", "press-2: maintenance mode"]
        assert [rig.worker_state(name) for name in ("press-1", "press-2", "oven")] == [
            "maintenance mode",
            "maintenance mode",
            "idle",
        ]
        rig.admin("maintenance", "off", "--state", "maintenance mode", "--yes", "--wait", "--timeout", "60")
        rig.wait_worker("press-2", "idle")
