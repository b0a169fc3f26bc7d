"""An outage that is longer than a task's token lives."""

from __future__ import annotations

import time

from acceptance.rig import Rig
from acceptance.test_crashes import assert_each_once

LIFETIME, LEEWAY = 20, 10
"""Seconds that a token lives, and by which Airflow's clocks may differ."""

SHORT = {"AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": str(LIFETIME)}


def test_tasks_whose_tokens_expire_while_the_api_server_is_away_end_well_with_one_effect_each(rig: Rig) -> None:
    rig.cluster.end("api-server")
    rig.cluster.start_api_server(**SHORT)
    rig.cluster.wait_for_api()
    try:
        with rig.running("epsilon"):
            run_id = rig.trigger("gated", count=2)
            rig.wait_started(run_id, 2)
            rig.cluster.forget("api-server").kill()
            expired = time.monotonic() + LIFETIME + LEEWAY + 5
            rig.release(run_id, 0)
            rig.wait(lambda: any(e["event"] == "end" for e in rig.ledger(run_id)), "a task to end without the server")
            rig.wait(lambda: time.monotonic() > expired, "the tokens to expire")
            rig.cluster.start_api_server(**SHORT)
            rig.cluster.wait_for_api()
            said = "its task has a new token"
            rig.wait(lambda: rig.daemon_log("epsilon").count(said) >= 2, "both tasks to have new tokens")
            rig.release(run_id)
            assert rig.finish("gated", run_id) == "success"
            assert_each_once(rig, run_id, 2)
            for index in range(2):
                rig.wait(
                    lambda i=index: f"task {i} was released" in rig.api.log("gated", run_id, "hold", map_index=i), "log"
                )
                lines = rig.api.log("gated", run_id, "hold", map_index=index)
                assert lines.count(f"task {index} works") == lines.count(f"task {index} was released") == 1
    finally:
        rig.cluster.end("api-server")
        rig.cluster.start_api_server()
        rig.cluster.wait_for_api()
