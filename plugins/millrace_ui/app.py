"""The app behind /millrace on Airflow's api-server. Everything in it asks for a sign-in, and nothing changes anything.

FastAPI's own pages (its documentation and schema) are switched off: they would answer without asking.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from millrace_ui.routes import router
from mllib.errors import MillraceError

log = logging.getLogger(__name__)

HEADERS = {
    # Reports hold log lines, which anybody may have written. They are escaped; if one ever is not, nothing of it runs,
    # loads or sends anything.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

app = FastAPI(title="Millrace", dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)
app.include_router(router)


@app.middleware("http")
async def guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Every answer, errors too, carries the headers that keep a page from doing anything but being read."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


@app.exception_handler(MillraceError)
def unavailable(_: Request, error: MillraceError) -> Response:
    """The message is for operators and may name hosts, so it goes to the log and not to the reader."""
    log.error("A report could not be shown: %s", error)
    return PlainTextResponse(
        "Millrace's database cannot be read at the moment. The log of the api-server says why.", status_code=503
    )
