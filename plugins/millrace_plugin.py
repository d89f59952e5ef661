"""Millrace in Airflow's pages. Registration only: what is registered lies in millrace_ui."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin


async def reports(scope: Any, receive: Any, send: Any) -> None:
    """The app with the reports. Imported at the first request: every process of Airflow loads this file."""
    from millrace_ui.app import app

    await app(scope, receive, send)


class MillracePlugin(AirflowPlugin):
    """The reports of the retraining runs: the pages, and an entry under Browse that leads to them."""

    name = "millrace"
    fastapi_apps: ClassVar[list[Any]] = [{"app": reports, "url_prefix": "/millrace", "name": "Millrace"}]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Model reports",
            "href": "/millrace/reports",
            "destination": "nav",
            "category": "browse",
            "url_route": "millrace-reports",
        }
    ]
