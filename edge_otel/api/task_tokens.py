"""The tokens with which tasks talk to Airflow's Execution API, made as Airflow makes them."""

from __future__ import annotations

from functools import lru_cache

from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args
from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException

from edge_otel.errors import TokensUnavailable


def mint(task_instance_id: str) -> str:
    """Return a token for one task instance, which is valid for ``[execution_api] jwt_expiration_time`` seconds.

    Raises TokensUnavailable where this server has not the key of the Execution API.
    """
    try:
        token: str = _generator().generate({"sub": task_instance_id, "scope": "execution"})
    except (AirflowConfigException, ValueError, OSError) as error:
        raise TokensUnavailable(reason=str(error)) from None
    return token


def available() -> bool:
    """Return whether tokens can be made here."""
    try:
        _generator()
    except (AirflowConfigException, ValueError, OSError):
        return False
    return True


# A failure is not kept: Airflow's API server may make a secret of its own later.
@lru_cache(maxsize=1)
def _generator() -> JWTGenerator:
    return JWTGenerator(
        valid_for=conf.getint("execution_api", "jwt_expiration_time"),
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
        issuer=conf.get("api_auth", "jwt_issuer", fallback=None),
        **get_signing_args(make_secret_key_if_needed=False),
    )
