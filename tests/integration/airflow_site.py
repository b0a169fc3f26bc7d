"""Airflow's own API server with the Edge API in it: its application, login and permissions, behind a real socket."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jwt
import pytest
import requests
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.log import Log
from airflow.models.team import Team, dag_bundle_team_association_table
from served import Api
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from edge_otel.api.ui_access import ACTION_HEADER
from edge_otel.models.session import new_session

USERS = {
    "ann": "admin",
    "olaf": "op",
    "uma": "user",
    "vera": "viewer",
    "rita": "op:red",
    "ruth": "viewer:red",
    "bob": "op:blue",
    "nick": "",
    "carl<i>\"'": "op",
}
"""Name and role (none: may do nothing), and the team of those who are in one."""
TEAMS = ("red", "blue")
MOUNT = "/edge_worker"
_COOKIE = "_token"


class Person:
    """Somebody at a browser: with the cookie that Airflow's login has given them."""

    def __init__(self, site: AirflowSite, cookie: str | None) -> None:
        self._site = site
        self.cookie = cookie
        self._http = requests.Session()
        self._http.trust_env = False

    def call(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send a request as the fleet page does; ``headers`` replace what it sends."""
        headers = kwargs.pop("headers", {ACTION_HEADER: "1", "Sec-Fetch-Site": "same-origin"})
        cookies = {} if self.cookie is None else {_COOKIE: self.cookie}
        return self._http.request(method, self._site.url + path, headers=headers, cookies=cookies, timeout=60, **kwargs)

    def get(self, path: str, **params: Any) -> Any:
        """Return what is answered to a question that may be asked."""
        answer = self.call("GET", f"{MOUNT}/ui/{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        """Return what is answered to an action that is to have this status."""
        answer = self.call("POST", f"{MOUNT}/ui/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def act(self, kind: str, *names: str, dry_run: bool = False, status: int = 200, **fields: Any) -> Any:
        """Do something to workers of these names or globs; return the outcome of each."""
        action = {"kind": kind, **fields}
        said = self.post("actions", status, selection={"names": names}, action=action, dry_run=dry_run)
        return {outcome["worker"]: (outcome["done"], outcome["text"]) for outcome in said} if status == 200 else said


class AirflowSite:
    """The running server."""

    def __init__(self, api: Api, passwords: dict[str, str]) -> None:
        self.url = api.url
        self.app = api.app
        self._passwords = passwords
        self._cookies: dict[str, str] = {}

    def login(self, name: str, *, lasts: int = 600, key: str | None = None) -> str:
        """Return what Airflow gives somebody who logs in: good for so many seconds, or forged with a ``key``."""
        role, _, team = USERS[name].partition(":")
        user = SimpleAuthManagerUser(username=name, role=role or None, teams=[team] if team else None)
        text: str = get_auth_manager().generate_jwt(user=user, expiration_time_in_seconds=lasts)
        if key is None:
            return text
        return jwt.encode(jwt.decode(text, options={"verify_signature": False}), key, algorithm="HS512")

    def person(self, name: str) -> Person:
        """Log somebody in, as Airflow's login page does."""
        if name not in self._cookies:
            answer = requests.post(
                f"{self.url}/auth/token",
                json={"username": name, "password": self._passwords[name]},
                timeout=60,
                proxies={"http": ""},
            )
            assert answer.status_code == 201, answer.text
            self._cookies[name] = answer.json()["access_token"]
        return Person(self, self._cookies[name])

    def stranger(self, cookie: str | None = None) -> Person:
        """Return somebody who has not logged in, or who brings a cookie of their own."""
        return Person(self, cookie)


@contextmanager
def running_airflow() -> Iterator[AirflowSite]:
    """Run Airflow's API server in this process, with teams and with USERS. What it reads is the tests' database."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="edge-users-") as folder:
        file = Path(folder) / "passwords.json"
        passwords = {name: f"secret of {name}" for name in USERS}
        file.write_text(json.dumps(passwords))
        users = ",".join(f"{name}:{role}" for name, role in USERS.items())
        for key, value in {
            "AIRFLOW__CORE__MULTI_TEAM": "True",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file),
            "AIRFLOW__EDGE__API_ENABLED": "True",
            # As a site that came from edge3 has it.
            "AIRFLOW__EDGE__API_URL": "https://central.example/edge_worker/v1/rpcapi",
            "AIRFLOW__EDGE__TRACE_URL": "http://traces.example/{trace_id}",
        }.items():
            patch.setitem(os.environ, key, value)
        from airflow import plugins_manager
        from airflow.api_fastapi.app import create_app, purge_cached_app

        plugins_manager.get_fastapi_plugins.cache_clear()
        with new_session() as session:
            for team in TEAMS:
                session.merge(Team(name=team))
        api = Api(create_app("core"))
        try:
            yield AirflowSite(api, passwords)
        finally:
            api.stop()
            purge_cached_app()
            plugins_manager.get_fastapi_plugins.cache_clear()


def put_dag(session: Session, dag_id: str, team: str | None = None) -> None:
    """Insert a DAG, in a bundle of its team's."""
    bundle = f"bundle of {team}"
    if session.get(DagBundleModel, bundle) is None:
        session.add(DagBundleModel(name=bundle))
        session.flush()
        if team is not None:
            values = {"dag_bundle_name": bundle, "team_name": team}
            session.execute(insert(dag_bundle_team_association_table).values(values))
    session.add(DagModel(dag_id=dag_id, bundle_name=bundle, max_active_tasks=16))
    session.flush()


def clear(session: Session) -> None:
    """Delete what tests leave in Airflow's tables."""
    for table in (Log, DagModel, dag_bundle_team_association_table, DagBundleModel):
        session.execute(delete(table))
