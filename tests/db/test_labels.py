"""Verdicts: filed under exactly the rows that they name, later ones on top, and known only once they are mature."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.gate.slices import HOUR
from mllib.jobs.intake import ingest
from mllib.jobs.labelling import label
from mllib.sources import SOURCES
from mllib.store import labels
from mllib.store import rows as row_store
from mllib.store.database import transaction
from mllib.types import Window
from tests.db.factories import add_label, insert_log, json_line, rows, scalar, write_lines
from tests.factories import START

CURRENT = (
    "select l.source_id, c.label, c.note, c.origin, c.labelled_by from millrace.labels_current as c"
    " join millrace.logs as l on l.ts = c.ts and l.log_id = c.row_id order by 1"
)
NOW = START + timedelta(days=1)
NONE = timedelta(0)
LOGS = SOURCES["logs"]


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> Engine:
    """Four rows of source app, ids 1 to 4."""
    ingest(engine, [write_lines(tmp_path / "app.jsonl", *(json_line(n) for n in range(4)))])
    return engine


def csv(tmp_path: Path, *lines: str | bytes) -> Path:
    return write_lines(tmp_path / "labels.csv", *lines)


def count(engine: Engine) -> int:
    return int(scalar(engine, "select count(*) from millrace.labels"))


def test_a_file_for_one_source(app: Engine, tmp_path: Path) -> None:
    path = csv(tmp_path, "id,label,note", '2,1,"slow, then down"', "3,0,", "4, disk_full ,")
    assert label(app, path, source="app", by="ana") == 3
    assert rows(app, CURRENT) == [
        ("2", "1", "slow, then down", "import", "ana"),
        ("3", "0", None, "import", "ana"),
        ("4", "disk_full", None, "import", "ana"),
    ]


def test_a_file_that_names_the_sources(app: Engine, tmp_path: Path) -> None:
    ingest(app, [write_lines(tmp_path / "db.jsonl", json_line(9))])
    path = csv(tmp_path, "label,id,source", "1,1,db", "0,1,app", "1,2,")
    assert label(app, path, source="app", by="ana") == 3
    by_source = (
        "select source, source_id, label from millrace.labels join millrace.logs on log_id = row_id order by 1, 2"
    )
    assert rows(app, by_source) == [("app", "1", "0"), ("app", "2", "1"), ("db", "1", "1")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([b"\xef\xbb\xbfid,label", b"1,1"], None),
        (["id,label\r", "1,1\r"], None),
        (["id,verdict", "1,1"], r"has the columns id, verdict; a label file has \[source,\]id,label\[,note\]"),
        (["id,label,when", "1,1,2"], "has the columns id, label, when"),
        (["1,1"], "has the columns 1, 1"),
        ([], r"has the columns \(none\)"),
        (["id,label", "1,"], "line 2: id or label is empty"),
        (["id,label", "1,1", "2, "], "line 3: id or label is empty"),
        (["id,label", ",1"], "line 2: id or label is empty"),
        (["id,label", "1"], "line 2: id or label is empty"),
        (["id,label,note", "1,1,down, then up"], "line 2: there are more cells than columns"),
        (["id,label", "1,1\0"], "line 2: .* NUL"),
        ([b"id,label", b"1,\xff"], "no CSV file in UTF-8"),
        (["id,label", "1," + "x" * 200_000], "no CSV file .*field larger"),
    ],
)
def test_what_a_file_may_hold(app: Engine, tmp_path: Path, content: list[str | bytes], problem: str | None) -> None:
    path = csv(tmp_path, *content)
    if problem is None:
        assert label(app, path, source="app", by="ana") == 1
        return
    with pytest.raises(BadInput, match=problem):
        label(app, path, source="app", by="ana")
    assert count(app) == 0


def test_a_file_without_any_verdict_files_none(app: Engine, tmp_path: Path) -> None:
    assert label(app, csv(tmp_path, "id,label"), source="app", by="ana") == 0


def test_whose_labels_they_are_has_to_be_said(app: Engine, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"line 2 names no source.*--source NAME"):
        label(app, csv(tmp_path, "id,label", "1,1"), by="ana")
    with pytest.raises(BadInput, match=r"no file .*nothing\.csv"):
        label(app, tmp_path / "nothing.csv", source="app", by="ana")


def test_one_unknown_id_and_none_is_filed(app: Engine, tmp_path: Path) -> None:
    path = csv(tmp_path, "id,label", "1,1", *(f"x{n},0" for n in range(9)), "2,1")
    with pytest.raises(
        BadInput, match=r"^9 of 11 labels .* name no row, such as app/x0, app/x1, app/x2; none was filed"
    ):
        label(app, path, source="app", by="ana")
    with pytest.raises(BadInput, match=r"^11 of 11 labels .* other/1.* Is the source right"):
        label(app, path, source="other", by="ana")
    assert count(app) == 0


def test_an_id_of_two_rows_is_no_id(app: Engine, tmp_path: Path) -> None:
    with transaction(app) as conn:
        insert_log(conn, source="app", source_id="2")
    with pytest.raises(BadInput, match=r"^1 of 2 labels .* name more than one row, such as app/2; none was filed"):
        label(app, csv(tmp_path, "id,label", "1,1", "2,1"), source="app", by="ana")
    assert count(app) == 0


def test_a_later_verdict_supersedes_and_the_earlier_stays(app: Engine, tmp_path: Path) -> None:
    label(app, csv(tmp_path, "id,label", "1,1", "2,1"), source="app", by="ana")
    label(app, csv(tmp_path, "id,label,note", "1,0,a drill"), source="app", by="ben")
    assert rows(app, CURRENT) == [("1", "0", "a drill", "import", "ben"), ("2", "1", None, "import", "ana")]
    assert count(app) == 3


def test_of_two_verdicts_in_one_file_the_later_line_counts(app: Engine, tmp_path: Path) -> None:
    lines = [f"{1 + n % 4},{n}" for n in range(1_000)]
    assert label(app, csv(tmp_path, "id,label", *lines), source="app", by="ana") == 1_000
    assert [row[:2] for row in rows(app, CURRENT)] == [("1", "996"), ("2", "997"), ("3", "998"), ("4", "999")]


def known(engine: Engine, as_of: datetime, delay: timedelta = NONE) -> dict[int, bool]:
    with transaction(engine) as conn:
        found = labels.in_window(conn, LOGS, Window(START - HOUR, START + 9 * HOUR), as_of=as_of, delay=delay)
    return dict(found.select("log_id", "positive").iter_rows())


def test_an_imported_verdict_is_known_at_the_time_of_its_row_plus_the_delay(engine: Engine) -> None:
    with transaction(engine) as conn:
        row = insert_log(conn)
        add_label(conn, row, labelled_at=NOW)
    instant = timedelta(microseconds=1)
    assert known(engine, START) == {row: True}
    assert known(engine, START - instant) == {}
    assert known(engine, START + HOUR, HOUR) == {row: True}
    assert known(engine, START + HOUR - instant, HOUR) == {}


def test_an_analysts_verdict_is_known_when_it_was_given_plus_the_delay(engine: Engine) -> None:
    with transaction(engine) as conn:
        row = insert_log(conn)
        add_label(conn, row, "disk_full", origin="analyst", labelled_at=NOW)
    instant = timedelta(microseconds=1)
    assert known(engine, NOW) == {row: True}
    assert known(engine, NOW - instant) == {}
    assert known(engine, NOW + HOUR - instant, HOUR) == {}
    assert known(engine, NOW + HOUR, HOUR) == {row: True}


def test_a_verdict_to_come_does_not_hide_the_one_that_was_known(engine: Engine) -> None:
    """A replay sees what a training of that day saw."""
    with transaction(engine) as conn:
        row = insert_log(conn)
        add_label(conn, row, "1")
        add_label(conn, row, "0", origin="analyst", labelled_at=NOW)
    assert known(engine, NOW - HOUR) == {row: True}
    assert known(engine, NOW) == {row: False}
    assert known(engine, NOW, HOUR) == {row: True}


def test_a_window_holds_its_start_and_not_its_end(engine: Engine) -> None:
    with transaction(engine) as conn:
        first, last = insert_log(conn, START), insert_log(conn, START + HOUR)
        add_label(conn, first, "0", ts=START)
        add_label(conn, last, ts=START + HOUR)
        inside = labels.in_window(conn, LOGS, Window(START, START + HOUR), as_of=NOW, delay=NONE)
    assert inside.rows() == [(first, "0", False)]


def test_verdicts_on_other_tables_are_left_out(engine: Engine) -> None:
    with transaction(engine) as conn:
        row = insert_log(conn)
        add_label(conn, row, subject="network_flows")
        extent = labels.extent(conn, LOGS, as_of=NOW, delay=NONE)
    assert known(engine, NOW) == {}
    assert (extent.first_row, extent.first_labelled) == (START, None)


def test_how_far_rows_and_mature_labels_reach(engine: Engine) -> None:
    with transaction(engine) as conn:
        assert labels.extent(conn, LOGS, as_of=NOW, delay=NONE) == labels.Extent(
            first_row=None, last_row=None, first_labelled=None, last_labelled=None
        )
        for hour in range(6):
            row = insert_log(conn, START + hour * HOUR)
            if hour in (1, 3):
                add_label(conn, row, ts=START + hour * HOUR)
            if hour == 4:
                add_label(conn, row, ts=START + hour * HOUR, origin="analyst", labelled_at=NOW)

    def reach(as_of: datetime, delay: timedelta = NONE) -> tuple[float | None, ...]:
        with transaction(engine) as conn:
            extent = labels.extent(conn, LOGS, as_of=as_of, delay=delay)
        ends = (extent.first_row, extent.last_row, extent.first_labelled, extent.last_labelled)
        return tuple(None if end is None else (end - START) / HOUR for end in ends)

    assert reach(NOW) == (0, 5, 1, 4)
    assert reach(NOW - HOUR) == (0, 5, 1, 3)
    assert reach(START + 3 * HOUR) == (0, 3, 1, 3)
    assert reach(START + 3 * HOUR, HOUR) == (0, 3, 1, 1)
    assert reach(START + HOUR, 2 * HOUR) == (0, 1, None, None)
    assert reach(START - HOUR) == (None,) * 4


def test_counts_by_hour(engine: Engine) -> None:
    with transaction(engine) as conn:
        for minutes, verdicts in ((0, "0"), (10, "10"), (59, ""), (60, "1"), (190, "")):
            ts = START + timedelta(minutes=minutes)
            row = insert_log(conn, ts)
            for verdict in verdicts:
                add_label(conn, row, verdict, ts=ts)
        late = insert_log(conn, START + timedelta(minutes=70))
        add_label(conn, late, ts=START + timedelta(minutes=70), origin="analyst", labelled_at=NOW)
    with transaction(engine) as conn:
        snapshot = row_store.current_snapshot(conn)
    with transaction(engine) as conn:
        insert_log(conn, START)  # after the snapshot

    def counts(as_of: datetime, until: datetime, grain: timedelta = HOUR) -> list[tuple[float, int, int, int]]:
        with transaction(engine) as conn:
            found = labels.hours(conn, LOGS, until=until, as_of=as_of, delay=NONE, grain=grain, snapshot=snapshot)
        return [((hour.start - START) / HOUR, hour.rows, hour.labelled, hour.positives) for hour in found]

    end = START + 4 * HOUR
    assert counts(NOW, end) == [(0, 3, 2, 0), (1, 2, 2, 2), (3, 1, 0, 0)]
    assert counts(NOW - HOUR, end) == [(0, 3, 2, 0), (1, 2, 1, 1), (3, 1, 0, 0)]
    assert counts(NOW, START + HOUR) == [(0, 3, 2, 0), (1, 1, 1, 1)]
    assert counts(NOW, START + timedelta(minutes=10), timedelta(minutes=1))[1] == (pytest.approx(1 / 6), 1, 1, 0)
