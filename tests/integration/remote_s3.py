"""An S3 server on loopback, and what makes Airflow's remote log use it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import requests
from s3_environment import module_path

from demo.process import Process
from demo.wait import wait_for

PATIENCE = 30.0


class S3:
    """A moto server with a bucket."""

    def __init__(self, port: int, folder: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._http = requests.Session()
        self._http.trust_env = False
        # Nobody checks the signature, but without one nothing is to be had.
        self._http.headers["Authorization"] = "AWS key:signature"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = Process("s3", command, log=folder / "s3.log", env={"PYTHONPATH": module_path()})
        wait_for(self.make, "S3 to answer", timeout=PATIENCE, pause=0.05)

    def make(self, bucket: str = "bucket") -> bool:
        """Make a bucket; return whether there is one now."""
        self.process.check()
        try:
            return self._http.put(f"{self._url}/{bucket}", timeout=10).ok
        except requests.ConnectionError:
            return False

    def get(self, path: str, bucket: str = "bucket") -> bytes | None:
        """Return what is stored of a log, or None."""
        answer = self._http.get(f"{self._url}/{bucket}/logs/{quote(path)}", timeout=10)
        return answer.content if answer.ok else None

    def stop(self) -> None:
        """End it; what it has is lost."""
        self._http.close()
        self.process.stop()


def environment(port: int, folder: str = "s3://bucket/logs") -> Mapping[str, str]:
    """Return the variables of a central side that uses the server at this port."""
    connection = {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"},
    }
    return {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": folder,
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "task_logs",
        "AIRFLOW_CONN_TASK_LOGS": json.dumps(connection),
    }
