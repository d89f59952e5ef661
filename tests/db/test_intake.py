"""Files into the database: whole or not at all, once, every line accounted for, and never under somebody else's ids."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.jobs.intake import ingest
from mllib.store import intake, partitions
from mllib.store.database import transaction
from tests.db.factories import bgl_line, insert_log, json_line, rows, scalar, write_lines
from tests.factories import START

FILES = "select source, state, rows, rejected, labels from millrace.ingest_files order by file_id"


def count(engine: Engine, table: str = "logs") -> int:
    return int(scalar(engine, f"select count(*) from millrace.{table}"))  # noqa: S608


def test_a_folder_of_several_formats(engine: Engine, landing: Path) -> None:
    write_lines(landing / "app.jsonl", *(json_line(n, service="shop") for n in range(3)))
    write_lines(landing / "bgl.log", *(bgl_line(n) for n in range(4)))
    (landing / "hdfs.log.gz").write_bytes(
        gzip.compress(b"081109 203615 148 INFO dfs.DataNode$PacketResponder: Received block blk_38 of size 9\n" * 2)
    )
    stamp = f"{START:%d/%b/%Y:%H:%M:%S} +0000"
    write_lines(landing / "access.log", f'10.0.0.1 - - [{stamp}] "GET / HTTP/1.1" 503 12 "-" "curl" 0.250')
    report = ingest(engine, [landing])
    assert (report.files, report.rows, report.rejected, report.labels, report.skipped) == (4, 10, 0, 0, {})
    by_source = rows(engine, "select source, count(*), min(source_id), max(source_id) from millrace.logs group by 1")
    assert sorted(by_source) == [
        ("access", 1, "1", "1"),
        ("app", 3, "1", "3"),
        ("bgl", 4, "1", "4"),
        ("hdfs", 2, "1", "2"),
    ]
    assert rows(
        engine, "select ts, status_code, response_time_ms, attributes from millrace.logs where source = 'access'"
    ) == [(START, 503, 250.0, {"client": "10.0.0.1", "agent": "curl", "bytes": 12})]
    formats = dict(rows(engine, "select source, format from millrace.ingest_files"))
    assert formats == {"access": "combined", "app": "jsonl", "bgl": "bgl", "hdfs": "hdfs"}


def test_a_row_has_all_that_its_line_says(engine: Engine, tmp_path: Path) -> None:
    line = json_line(
        0, id="r-1", host="h", service="s", trace_id="t", status=404, latency_ms=1.5, deep={"a": [1, None]}
    )
    write_lines(tmp_path / "x.jsonl", line)
    ingest(engine, [tmp_path / "x.jsonl"], source="web")
    assert rows(
        engine,
        "select ts, source, source_id, level, service, host, trace_id, message, response_time_ms, status_code,"
        " attributes from millrace.logs",
    ) == [(START, "web", "r-1", "INFO", "s", "h", "t", "request 0 done", 1.5, 404, {"deep": {"a": [1, None]}})]


def test_awkward_text_comes_through_copy_as_it_is(engine: Engine, tmp_path: Path) -> None:
    messages = ["tab\there", "back\\slash \\N \\.", "", "ü 漢 \U0001f600", "'; drop table logs; --", "x" * 200_000]
    write_lines(tmp_path / "x.jsonl", *(json.dumps({"ts": START.isoformat(), "message": text}) for text in messages))
    assert ingest(engine, [tmp_path / "x.jsonl"]).rows == len(messages)
    stored = rows(engine, "select message from millrace.logs order by source_id::int")
    assert [message for (message,) in stored] == messages


def test_a_file_is_loaded_once_under_whatever_name(engine: Engine, tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", json_line(1))
    again = write_lines(tmp_path / "b.jsonl", json_line(1))
    assert ingest(engine, [first]).rows == 1
    for path, said in ((first, ", source a"), (again, f" as {first}, source a")):
        report = ingest(engine, [path])
        assert (report.files, report.rows, list(report.skipped)) == (0, 0, [str(path)])
        assert report.skipped[str(path)].startswith("loaded on ")
        assert report.skipped[str(path)].endswith(said)
    assert count(engine) == 1


def test_lines_that_cannot_be_read_are_kept_with_their_bytes(engine: Engine, tmp_path: Path) -> None:
    far = datetime(9999, 12, 31, tzinfo=UTC).isoformat()
    bad = [
        b'{"ts": "2026-03-02T08:00:00Z", "message": "nul \x00 byte"}',
        b'{"ts": "2026-03-02T08:00:00Z", "message": "no utf-8: \xff"}',
        json_line(0, ts="1970-01-01T00:00:00Z").encode(),
        json_line(0, ts=far).encode(),
        json_line(0, ts="9999-99-99").encode(),
        b"not json",
        b'{"ts": "2026-03-02T08:00:00Z", "message": "\\u0000"}',
        b"[" * 100_000,
        b'{"ts": "2026-03-02T08:00:00Z", "message": "' + b"x" * 1_000_000 + b'"}',
    ]
    path = write_lines(tmp_path / "x.jsonl", json_line(1), *bad, "", json_line(2))
    report = ingest(engine, [path])
    assert (report.rows, report.rejected) == (2, len(bad))
    kept = rows(
        engine, "select line_number, byte_offset, raw, reason from millrace.ingest_rejects order by line_number"
    )
    content = path.read_bytes()
    for (number, offset, raw, _), line in zip(kept, bad, strict=True):
        assert raw == line[:262_144] == content[offset : offset + len(raw)]
        assert content[:offset].count(b"\n") == number - 1
    for (*_, reason), words in zip(
        kept, ["NUL", "not UTF-8", "1970", "9999", "9999", "not JSON", "NUL", "nested", "1,000,0"], strict=True
    ):
        assert words in reason
    assert rows(engine, "select source_id from millrace.logs order by 1") == [("1",), (str(len(bad) + 3),)]
    assert rows(engine, FILES) == [("x", "loaded", 2, len(bad), 0)]
    assert scalar(engine, "select last_line from millrace.ingest_files") == len(bad) + 3
    assert len(report.main_rejects) == 5
    assert str(path) in report.main_rejects[0]


def test_labels_inside_the_file_only_when_asked_for(engine: Engine, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bgl.log", bgl_line(0), bgl_line(1, tag="KERNDTLB"), bgl_line(2))
    assert ingest(engine, [path]).labels == 0
    assert count(engine, "labels") == 0


def test_the_alert_column_becomes_the_label_of_its_row(engine: Engine, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bgl.log", bgl_line(0), "garbage", bgl_line(1, tag="KERNDTLB"), bgl_line(2))
    assert ingest(engine, [path], with_labels=True).labels == 3
    assert rows(
        engine,
        "select l.source_id, v.label, v.origin, v.labelled_by, v.subject from millrace.labels as v"
        " join millrace.logs as l on l.ts = v.ts and l.log_id = v.row_id order by 1",
    ) == [
        ("1", "0", "import", str(path), "logs"),
        ("3", "1", "import", str(path), "logs"),
        ("4", "0", "import", str(path), "logs"),
    ]
    assert rows(engine, FILES) == [("bgl", "loaded", 3, 1, 3)]


def test_a_label_goes_to_its_own_row_even_where_ids_repeat_in_the_file(engine: Engine, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", *(json_line(n, id="same", label=n % 2) for n in range(6)))
    assert ingest(engine, [path], with_labels=True).labels == 6
    joined = rows(engine, "select message, label from millrace.labels join millrace.logs on log_id = row_id order by 1")
    assert joined == [(f"request {n} done", str(n % 2)) for n in range(6)]


def test_line_numbers_of_a_second_file_are_refused_with_the_way_out(engine: Engine, tmp_path: Path) -> None:
    first = write_lines(tmp_path / "app.log.jsonl", json_line(1, label=1))
    second = write_lines(tmp_path / "app.1.jsonl", json_line(2, label=1), "garbage")
    ingest(engine, [first], with_labels=True)
    with pytest.raises(
        BadInput, match=rf"app\.1\.jsonl was refused, none .* overlap with those of {first}.*--source NAME"
    ):
        ingest(engine, [second], with_labels=True)
    assert rows(engine, FILES) == [("app", "loaded", 1, 0, 1), ("app", "refused", 0, 0, 0)]
    assert (count(engine), count(engine, "labels"), count(engine, "ingest_rejects")) == (1, 1, 0)
    assert "refused before: Source 'app' has such lines" in ingest(engine, [second]).skipped[str(second)]
    assert ingest(engine, [second], source="app_1").rows == 1


@pytest.mark.parametrize("later", [timedelta(0), timedelta(days=400)], ids=["same time", "much later"])
def test_ids_that_an_earlier_file_has_are_refused(engine: Engine, tmp_path: Path, later: timedelta) -> None:
    first = write_lines(tmp_path / "a.jsonl", *(json_line(n, ts=START - later, id=f"r{n}") for n in range(3)))
    second = write_lines(tmp_path / "b.jsonl", *(json_line(n, ts=START, id=f"r{n}") for n in range(2, 4)))
    ingest(engine, [first], source="web")
    with pytest.raises(BadInput, match=r"the id 'r2' is there.*--source NAME"):
        ingest(engine, [second], source="web")
    assert [row[1] for row in rows(engine, FILES)] == ["loaded", "refused"]
    assert count(engine) == 3


def test_own_ids_that_do_not_repeat_may_share_a_source(engine: Engine, tmp_path: Path) -> None:
    for name, ids in (("a", (1, 9)), ("b", (2, 8)), ("c", (100, 200))):  # the second lies within the first
        path = write_lines(tmp_path / f"{name}.jsonl", *(json_line(n, id=f"r{n:03}") for n in ids))
        ingest(engine, [path], source="web")
    assert count(engine) == 6


def test_a_line_number_is_not_taken_for_an_own_id(engine: Engine, tmp_path: Path) -> None:
    ingest(engine, [write_lines(tmp_path / "a.jsonl", json_line(1, id="2"))], source="web")
    with pytest.raises(BadInput, match="the id '2' is there"):
        ingest(engine, [write_lines(tmp_path / "b.jsonl", json_line(2), json_line(3))], source="web")


def test_two_files_of_a_source_at_once_do_not_both_get_in(engine: Engine, tmp_path: Path) -> None:
    loaders = 4
    start = Barrier(loaders)
    for attempt in range(3):

        def load(number: int, attempt: int = attempt) -> str:
            path = write_lines(tmp_path / f"{attempt}_{number}.jsonl", json_line(loaders * attempt + number))
            start.wait()
            try:
                ingest(engine, [path], source=f"s{attempt}")
            except BadInput:
                return "refused"
            return "loaded"

        with ThreadPoolExecutor(loaders) as pool:
            assert sorted(pool.map(load, range(loaders))) == ["loaded"] + ["refused"] * (loaders - 1)
    assert count(engine) == 3


def test_more_days_than_partitions_are_made_for(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_NEW_PARTITIONS", 3)
    monkeypatch.setattr("mllib.jobs.intake.read.__kwdefaults__", {**_read_defaults(), "batch_rows": 4})
    lines = (json_line(n, ts=START + timedelta(days=n // 2), label=n % 2) for n in range(20))
    assert ingest(engine, [write_lines(tmp_path / "x.jsonl", *lines)], with_labels=True).rows == 20
    assert scalar(engine, "select count(*) from only millrace.logs_default") == 16
    with transaction(engine) as conn:
        assert len(partitions.existing(conn, partitions.LOGS)) == 2
    assert partitions.adopt_strays(engine) == 8
    assert (count(engine), count(engine, "labels")) == (20, 20)


def _read_defaults() -> dict[str, object]:
    from mllib.jobs.intake import read

    return dict(read.__kwdefaults__)


def test_a_day_whose_partition_cannot_be_made_now_loads_all_the_same(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT", "200ms")
    with engine.connect() as busy:
        insert_log(busy)
        assert ingest(engine, [write_lines(tmp_path / "x.jsonl", json_line(1), json_line(2))]).rows == 2
        busy.commit()
    assert (count(engine), scalar(engine, "select count(*) from only millrace.logs_default")) == (3, 3)
