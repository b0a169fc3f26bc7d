"""Prints the merge rules of an installed edge3 as JSON; run by the interpreter of its own environment.

``tests/unit/edge3_merge.json`` is what this printed for ``apache-airflow-providers-edge3`` 5.1.0.
"""

import json
import sys

from airflow.providers.edge3 import __version__
from airflow.providers.edge3.models.edge_worker import EdgeWorkerState
from airflow.providers.edge3.worker_api.routes.worker import redefine_state

if __name__ == "__main__":
    rules = {
        stored.value: {reported.value: redefine_state(stored, reported).value for reported in EdgeWorkerState}
        for stored in EdgeWorkerState
    }
    table = {
        "source": "redefine_state of apache-airflow-providers-edge3, printed by tests/integration/edge3_merge.py",
        "version": __version__,
        "stored": rules,
    }
    json.dump(table, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
