"""Who looks at the fleet page, and what Airflow lets them do: asked of Airflow's auth manager at each call.

Reading needs the right to read Airflow's jobs view. Acting on workers needs the right to edit pools: they are, like
pools, the room in which tasks run. Tokens are credentials and need the rights on connections. With teams, each is asked
for the worker's team.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal

from airflow import __version__ as airflow_version
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, ConnectionDetails, PoolDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from fastapi import Depends, Request

from edge_otel.errors import CrossSite, NotPermitted

AIRFLOW_VERSION: str = airflow_version
ACTION_HEADER = "X-Edge-Action"
"""No other site's page can send it with the user's cookie: the browser asks first, and is not answered."""


Method = Literal["GET", "POST", "PUT", "DELETE"]


def has_teams() -> bool:
    """Return whether Airflow has teams here."""
    return bool(conf.getboolean("core", "multi_team"))


class User:
    """Who asks. Each question about a team is asked once."""

    def __init__(self, user: Any) -> None:
        self._user = user
        self._manager = get_auth_manager()
        self._answers: dict[tuple[str, str | None], bool] = {}

    @property
    def name(self) -> str:
        """The name that actions are recorded under."""
        return str(self._user.get_name())

    def sees(self, team: str | None) -> bool:
        """Return whether workers of this team are shown."""
        return self._pool("GET", team)

    def acts(self, team: str | None) -> bool:
        """Return whether workers of this team obey."""
        return self._pool("PUT", team)

    def tokens(self, method: Method, team: str | None) -> bool:
        """Return whether this may be done to the tokens of a team."""
        key = (f"tokens {method}", team)
        if key not in self._answers:
            details = ConnectionDetails(team_name=team)
            self._answers[key] = self._manager.is_authorized_connection(method=method, user=self._user, details=details)
        return self._answers[key]

    def somewhere(self, permitted: Callable[[str | None], bool]) -> bool:
        """Return whether something is permitted on what has no team, or on what is of one of the user's teams."""
        return any(map(permitted, (None, *self.teams)))

    @cached_property
    def teams(self) -> list[str]:
        """The teams that the user belongs to; none where Airflow has no teams."""
        if not has_teams():
            return []
        return sorted(self._manager.get_authorized_teams(user=self._user, method="GET"))

    @cached_property
    def dags(self) -> set[str]:
        """The DAGs whose jobs are shown."""
        found: set[str] = self._manager.get_authorized_dag_ids(user=self._user, method="GET")
        return found

    def _pool(self, method: Literal["GET", "PUT"], team: str | None) -> bool:
        key = (method, team)
        if key not in self._answers:
            details = PoolDetails(team_name=team)
            self._answers[key] = self._manager.is_authorized_pool(method=method, user=self._user, details=details)
        return self._answers[key]


def _reader(user: GetUserDep) -> User:
    if not get_auth_manager().is_authorized_view(access_view=AccessView.JOBS, user=user):
        raise NotPermitted("The fleet is shown to those who may read Airflow's jobs; your role may not.")
    return User(user)


def _actor(request: Request, user: Annotated[User, Depends(_reader)]) -> User:
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise CrossSite
    by_cookie = not request.headers.get("authorization", "").lower().startswith("bearer ")
    if by_cookie and ACTION_HEADER not in request.headers:
        raise CrossSite
    return user


Reader = Annotated[User, Depends(_reader)]
"""Somebody who may look."""
Actor = Annotated[User, Depends(_actor)]
"""The same, in a request that changes something and that no other site's page has made."""
