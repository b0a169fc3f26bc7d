"""Which database Airflow's settings lead to."""

from __future__ import annotations

import os


def use(url: str) -> None:
    """Let Airflow's settings, and so all code under test, work on this database."""
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
    from airflow import settings

    settings.configure_vars()
    settings.reconfigure_orm()
