"""Who calls: a worker's own token, or (only when allowed) edge3's shared secret."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any
from urllib.parse import unquote

import jwt
from airflow.api_fastapi.auth.tokens import JWTValidator, get_signing_args
from airflow.exceptions import AirflowConfigException
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from edge_otel.errors import Forbidden
from edge_otel.models import tokens
from edge_otel.models.session import new_session

log = logging.getLogger(__name__)

_V1 = "/v1/"


@dataclass(frozen=True)
class Principal:
    """What the caller's credential allows. Every method raises Forbidden with the reason for the server's log."""

    token_id: str | None
    """None for the holder of the shared secret, who may act as any worker."""
    workers: str = "*"
    queues: frozenset[str] | None = None
    team: str | None = None

    @property
    def shared_secret(self) -> bool:
        return self.token_id is None

    def require_worker(self, name: str | None) -> None:
        """The credential is that worker's."""
        if not self.shared_secret and (name is None or not tokens.matches(self.workers, name)):
            raise Forbidden(reason=f"token {self.token_id} is for worker {self.workers!r}, not {name!r}")

    def require_scope(self, team: str | None, queues: Collection[str] | None) -> None:
        """The credential is for this team, and for all of these queues (None: every queue)."""
        if self.shared_secret:
            return
        if team != self.team:
            raise Forbidden(reason=f"token {self.token_id} is for team {self.team!r}, not {team!r}")
        if self.queues is not None and (queues is None or not self.queues.issuperset(queues)):
            raise Forbidden(reason=f"token {self.token_id} is not for queues {queues}")

    def allowed_queues(self, asked: Collection[str] | None) -> list[str] | None:
        """Return the queues to serve: those asked for, or all that the credential allows (None: every queue)."""
        if asked is None:
            return None if self.queues is None else sorted(self.queues)
        if self.queues is not None and not self.queues.issuperset(asked):
            raise Forbidden(reason=f"token {self.token_id} is not for queues {sorted(set(asked) - self.queues)}")
        return list(asked)

    def team_for(self, asked: str | None) -> str | None:
        """Return the worker's team."""
        if self.shared_secret or asked == self.team or asked is None:
            return asked if self.shared_secret else self.team
        raise Forbidden(reason=f"token {self.token_id} is for team {self.team!r}, not {asked!r}")


def of_token(authorization: str | None) -> Principal:
    """Return whom the worker token in an ``Authorization`` header stands for, or raise Forbidden."""
    scheme, _, credential = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Forbidden(reason="no worker token")
    now = datetime.now(UTC)
    with new_session() as session:
        token = tokens.verify(session, credential.strip(), now)
        if isinstance(token, str):
            raise Forbidden(reason=token)
        tokens.record_use(session, token, now)
        return Principal(
            token.id, token.worker, frozenset(token.queues) if token.queues is not None else None, token.team
        )


class Authenticator:
    """Checks credentials; one per application."""

    def __init__(self, accept_shared_secret: bool) -> None:
        self._accept_shared_secret = accept_shared_secret
        if accept_shared_secret:
            log.warning(
                "[edge] accept_shared_secret_tokens is on: whoever holds [api_auth] jwt_secret can act as any edge"
                " worker. Turn it off once every site has a token of its own."
            )

    @cached_property
    def _validator(self) -> JWTValidator:
        return JWTValidator(audience="api", **get_signing_args(make_secret_key_if_needed=False))

    def principal(self, authorization: str | None, path: str) -> Principal:
        """Return whom the ``Authorization`` header of a request to ``path`` stands for."""
        scheme, _, credential = (authorization or "").partition(" ")
        if not self._accept_shared_secret or (scheme.lower() == "bearer" and credential.startswith("ewt_")):
            return of_token(authorization)
        if not authorization:
            raise Forbidden(reason="no Authorization header")
        return self._of_shared_secret(credential or scheme, path)

    def _of_shared_secret(self, text: str, path: str) -> Principal:
        try:
            validator = self._validator
        except (AirflowConfigException, ValueError) as error:
            raise Forbidden(reason=f"shared-secret tokens are accepted, but there is no secret: {error}") from None
        try:
            claims: dict[str, Any] = validator.validated_claims(text)
        except jwt.PyJWTError as error:
            raise Forbidden(reason=f"shared-secret token: {type(error).__name__}: {error}") from None
        # edge3 signs what it calls below v1, which is all that it knows; a server in front may have decoded it.
        called = path.partition(_V1)[2]
        signed = str(claims.get("method", ""))
        if not called or unquote(signed) != unquote(called):
            raise Forbidden(reason=f"shared-secret token is signed for {signed!r}, not {called!r}")
        return Principal(None)


_header = HTTPBearer(auto_error=False, description="A worker token: `airflow edge token create`.")


def _principal(request: Request, _: Annotated[object, Depends(_header)]) -> Principal:
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator.principal(request.headers.get("authorization"), request.url.path)


Caller = Annotated[Principal, Depends(_principal)]
"""The authenticated caller of a route."""
