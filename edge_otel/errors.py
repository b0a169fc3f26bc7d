"""The one tree of errors: the docstring is the message, and each has its HTTP status."""

from __future__ import annotations

from typing import Any


class EdgeError(Exception):
    """Something went wrong in edge-otel."""

    status = 500

    def __init__(self, detail: str = "", **facts: Any) -> None:
        self.detail = detail or " ".join((self.__doc__ or "").split())
        self.facts = facts
        super().__init__(self.detail)


class NotMigrated(EdgeError):
    """The edge-otel tables are missing or old. Run `airflow db migrate`, then start again."""

    status = 503


class DatabaseUnavailable(EdgeError):
    """The database cannot be reached, or is too busy. Try again."""

    status = 503


class ConfigurationInvalid(EdgeError):
    """An option in section [edge] of the Airflow configuration is invalid."""

    status = 500


class Forbidden(EdgeError):
    """Forbidden."""

    # The reason goes to the server's log beside the error id; the caller learns nothing but the id.
    status = 403


class NotPermitted(EdgeError):
    """Your role in Airflow does not allow this."""

    status = 403


class CrossSite(EdgeError):
    """The request came from another site's page, or lacks the header X-Edge-Action, which the fleet page sends."""

    status = 403


class VersionRefused(EdgeError):
    """The worker's version is not accepted here."""

    status = 400


class WorkerNotFound(EdgeError):
    """No worker of this name is registered."""

    status = 404


class NameTaken(EdgeError):
    """A worker of this name is active."""

    status = 409


class SessionReplaced(EdgeError):
    """Another daemon has registered under this worker's name. This one must stop taking jobs."""

    status = 409


class WorkerUpgradeNeeded(EdgeError):
    """Upgrade this edge worker: it must report task instance UUIDs."""

    status = 409


class WorkerActive(EdgeError):
    """The worker is connected. Shut it down first."""

    status = 409


class JobsUnsettled(EdgeError):
    """The worker has running jobs whose end is not settled yet."""

    status = 409


class WorkerGone(EdgeError):
    """The worker is not connected, so it cannot be changed."""

    status = 409


class NotInMaintenance(EdgeError):
    """The worker is not in maintenance."""

    status = 409


class QueueNotServed(EdgeError):
    """The worker does not serve this queue."""

    status = 409


class QueueNotAllowed(EdgeError):
    """The worker's token does not allow this queue."""

    status = 409


class JobNotFound(EdgeError):
    """No such job: it was revoked, or it ended long ago."""

    status = 404


class StaleClaim(EdgeError):
    """The claim is not the job's current one. Stop the process and forget the job."""

    status = 409


class NoTask(EdgeError):
    """The job is no task: only the tokens of tasks are renewed."""

    status = 409


class TokensUnavailable(EdgeError):
    """This server cannot sign tokens of tasks. Give it the [api_auth] jwt_secret of Airflow's API server."""

    # The fact ``reason`` goes to the server's log.
    status = 503


class LogGap(EdgeError):
    """The range begins beyond the last byte known here. Send again from the cursor in the Range header."""

    status = 416


class TooLarge(EdgeError):
    """The request is larger than this server accepts."""

    status = 413


class TooBusy(EdgeError):
    """Too many workers connect at once. Try again a little later."""

    # The fact ``retry_after``: seconds.
    status = 503


class BadInput(EdgeError):
    """The request is malformed."""

    status = 422


class UnsupportedMedia(EdgeError):
    """Send OTLP as protobuf: `Content-Type: application/x-protobuf`, compressed with gzip or not at all."""

    status = 415


class NotOtlp(EdgeError):
    """The body is no OTLP request in protobuf. Sending it again would not help."""

    # The fact ``reason`` goes to the server's log.
    status = 400


class CollectorRefused(EdgeError):
    """The collector has refused this telemetry. Sending it again would not help."""

    status = 400


class NoCollector(EdgeError):
    """The central side has no collector for telemetry. An administrator sets one with `[edge] otlp_endpoint`."""

    status = 404


class CollectorAway(EdgeError):
    """The collector does not take telemetry now. Keep it, and send it again later."""

    # The fact ``retry_after``: seconds.
    status = 503


class TokenNotFound(EdgeError):
    """No token has this id. `airflow edge token list` shows those that exist."""

    status = 404


class TokenEnded(EdgeError):
    """The token was revoked or has expired, so nothing can take over from it. Create a new one."""

    status = 409


class MetricsForbidden(EdgeError):
    """Metrics are read with [edge] metrics_token as the bearer token. While that is not set, only a client on this host
    that connects directly may read them."""

    status = 403
