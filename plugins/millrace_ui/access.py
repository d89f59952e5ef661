"""Who may see what: whoever may read a detector's retraining DAG may read its reports."""

from __future__ import annotations

from collections.abc import Iterable

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails


def may_read(user: BaseUser, detector: str) -> bool:
    """Whether a user may see the reports of a detector."""
    return get_auth_manager().is_authorized_dag(method="GET", details=DagDetails(id=f"retrain_{detector}"), user=user)


def readable(user: BaseUser, detectors: Iterable[str]) -> list[str]:
    """Those of the detectors whose reports a user may see."""
    return [detector for detector in detectors if may_read(user, detector)]
