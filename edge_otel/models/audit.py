"""Airflow's audit log."""

from __future__ import annotations

import json
from typing import Any

from airflow.models.log import Log
from sqlalchemy.orm import Session

MAX_OWNER, MAX_EXTRA = 500, 65_535
"""Characters; the second is where MySQL has the least room."""


def record(session: Session, event: str, by: str, **extra: Any) -> None:
    """Add an entry: who did what, with more of it as JSON; of what is too long, its beginning as text."""
    who, more = by[:MAX_OWNER], json.dumps(extra)
    if len(more) > MAX_EXTRA:
        more = json.dumps({"cut_off": more[: MAX_EXTRA // 3]})
    session.add(Log(event=event, owner=who, owner_display_name=who, extra=more))
