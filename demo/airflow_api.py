"""The few calls of Airflow's public REST API that we need."""

from __future__ import annotations

from typing import Any

import requests

TIMEOUT = 120.0
UNFINISHED = frozenset({"queued", "running"})


class AirflowApi:
    """A client that logs in by itself, for a site where everyone who reaches it is an administrator."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def _log_in(self) -> None:
        answer = self._session.get(f"{self._url}/auth/token", timeout=TIMEOUT)
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def forget_login(self) -> None:
        """Log in anew with the next call: the server may have."""
        self._session.headers.pop("Authorization", None)

    def close(self) -> None:
        """Close the kept connections."""
        self._session.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer.

        :raises requests.HTTPError: for every refusal, with its text
        """
        if "Authorization" not in self._session.headers:
            self._log_in()
        answer = self._session.request(method, f"{self._url}/api/v2/{path}", timeout=TIMEOUT, **options)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text[:500]}", response=answer)
        return answer.json() if answer.content else None

    def dag_exists(self, dag_id: str) -> bool:
        """Return whether the DAG processor has stored this DAG."""
        try:
            self.call("GET", f"dags/{dag_id}")
        except requests.HTTPError as refused:
            if refused.response.status_code == requests.codes.not_found:
                return False
            raise
        return True

    def import_errors(self) -> list[str]:
        """Return the stack traces of DAG files that could not be loaded."""
        return [error["stack_trace"] for error in self.call("GET", "importErrors")["import_errors"]]

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run of the DAG and return its id."""
        body = {"logical_date": None, "conf": conf or {}}
        run_id: str = self.call("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        state: str = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]
        return state

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run, by task and map index."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = self.call("GET", path, params={"limit": 100})["task_instances"]
        return sorted(found, key=lambda task: (task["task_id"], task["map_index"]))

    def states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of every task instance; a mapped one is named ``task[index]``."""
        return {label(task): task["state"] for task in self.tasks(dag_id, run_id)}

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> list[str]:
        """Return the lines of one try's log, as Airflow's own page shows them."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        lines: list[str] = []
        token = None
        while True:
            params = {"map_index": map_index, "full_content": "true", **({"token": token} if token else {})}
            page = self.call("GET", path, params=params, headers={"Accept": "application/json"})
            content = page["content"]
            lines.extend(text for line in content for text in _texts(line))
            if not page["continuation_token"] or not content or page["continuation_token"] == token:
                return lines
            token = page["continuation_token"]


def _texts(line: dict[str, Any] | str) -> list[str]:
    if isinstance(line, str):
        return [line]
    raised = line.get("error_detail") or []
    return [line["event"], *(f"{error['exc_type']}: {error['exc_value']}" for error in raised)]


def label(task: dict[str, Any]) -> str:
    """Return the name of a task instance within its run."""
    index = task["map_index"]
    name: str = task["task_id"]
    return name if index < 0 else f"{name}[{index}]"
