"""The pages: the list of reports, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, HTTPException
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, FileSystemLoader

from millrace_ui import access, service
from mllib.report.page import environment

router = APIRouter()

DecisionId = Annotated[int, PathParameter(ge=1, le=2**63 - 1)]

# Beside the templates of the reports, whose frame and styles the list shares.
_pages = environment().overlay(
    loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent / "templates"), environment().loader])
)


@router.get("/reports")
def list_reports(user: GetUserDep) -> HTMLResponse:
    """The reports of all detectors that the user may read, the latest first."""
    rows = service.listed(lambda detectors: access.readable(user, detectors))
    return HTMLResponse(_pages.get_template("reports.html.j2").render(rows=rows))


@router.get("/reports/{decision_id}")
def show_report(decision_id: DecisionId, user: GetUserDep) -> HTMLResponse:
    """The report of one decision, as it was stored with it."""
    page = service.page(decision_id)
    if page is None:
        raise HTTPException(404, f"There is no decision {decision_id}.")
    if not access.may_read(user, page.detector):
        raise HTTPException(403, "You may not read this report.")
    if page.content is None:
        raise HTTPException(
            404, f"Decision {decision_id} has no report: it was made by hand, or the report could not be drawn."
        )
    return HTMLResponse(page.content)
