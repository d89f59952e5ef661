"""The report of a retraining run on a real stack: linked from the task, shown to whoever may read the DAG only."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message

import pytest

from mllib.local.environment import passwords
from tests.e2e.conftest import DETECTOR, Run, Stack

RETRAIN = f"retrain_{DETECTOR}"

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def judged(local: Stack) -> Run:
    """A run that has judged a candidate; what the verdict is does not matter here."""
    if not local.rows("select from millrace.logs limit 1"):
        assert local.run("ingest").state == "success"
    run = local.run(RETRAIN)
    assert run.state == "success"
    return run


def get(local: Stack, path: str, token: str | None = None) -> tuple[int, str, Message]:
    """Status, body and headers of a page, with or without a sign-in."""
    request = urllib.request.Request(local.api.url + path)  # noqa: S310 - our own stack
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def link(judged: Run) -> str:
    run = urllib.parse.quote(judged.run_id, safe="")
    links = judged.stack.api.call("GET", f"/dags/{RETRAIN}/dagRuns/{run}/taskInstances/judge_candidate/links")
    found: str = links["extra_links"]["Report"]
    return found


def token(local: Stack, user: str) -> str:
    body = json.dumps({"username": user, "password": passwords(local.home)[user]}).encode()
    request = urllib.request.Request(  # noqa: S310 - our own stack
        local.api.url + "/auth/token", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found: str = json.load(answer)["access_token"]
    return found


def test_the_task_links_to_the_report_of_its_verdict(judged: Run) -> None:
    verdict = judged.returned("judge_candidate", "verdict")

    assert link(judged).endswith(f"/millrace/reports/{verdict['decision_id']}")
    assert f"The report: {link(judged)}" in judged.log("judge_candidate")


def test_the_report_is_shown_to_those_who_are_signed_in_only(local: Stack, judged: Run) -> None:
    for path in (link(judged), "/millrace/reports"):
        status, body, _ = get(local, path)
        assert status == 401
        assert DETECTOR not in body
        for user in ("admin", "analyst"):
            status, body, headers = get(local, path, token(local, user))
            assert status == 200
            assert DETECTOR in body
            assert "default-src 'none'" in str(headers["content-security-policy"])
            assert headers["content-type"].startswith("text/html")


def test_the_page_is_the_one_that_was_stored_with_the_decision(local: Stack, judged: Run) -> None:
    number = int(link(judged).rpartition("/")[2])
    [(content,)] = local.rows("select content from millrace.promotion_reports where decision_id = :n", n=number)

    assert get(local, link(judged), token(local, "analyst"))[1] == content


def test_a_dry_run_has_no_report(local: Stack, judged: Run) -> None:
    run = local.run(RETRAIN, {"dry_run": True})

    path = f"/dags/{RETRAIN}/dagRuns/{urllib.parse.quote(run.run_id, safe='')}/taskInstances/judge_candidate/links"
    assert local.api.call("GET", path)["extra_links"] == {"Report": None}


def test_the_plugin_is_loaded_without_a_fault(local: Stack, judged: Run) -> None:
    assert local.api.call("GET", "/plugins/importErrors")["total_entries"] == 0
    assert "deprecated" not in judged.log("judge_candidate")
