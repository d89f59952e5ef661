"""Network flows: connections of NSL-KDD and files of CICFlowMeter, good ones and those that are not what they seem."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mllib.ingest import detect, format_named
from mllib.ingest.base import FileRefused, FlowRecord, ParseOptions, Refused
from mllib.ingest.reader import Part, read
from mllib.sources import CICFLOWMETER_FEATURES, NSL_KDD_FEATURES
from tests.db.source_factories import FLOW_HEADER, connection_line, flow_line

START = datetime(2026, 1, 5, tzinfo=UTC)
OLD_HEADER = FLOW_HEADER
for new, old in (
    ("Total Fwd Packet,", " Total Fwd Packets,"),
    ("Total Bwd packets", " Total Backward Packets"),
    ("Total Length of Fwd Packet,", "Total Length of Fwd Packets,"),
    ("Fwd Segment Size Avg", " Avg Fwd Segment Size"),
    ("FWD Init Win Bytes", "Init_Win_bytes_forward"),
    ("Dst Port", " Destination Port"),
    ("CWR Flag Count", " CWE Flag Count"),
    ("SYN Flag Count", "  syn flag count "),
):
    assert new in OLD_HEADER
    OLD_HEADER = OLD_HEADER.replace(new, old)


def records(path: Path, name: str, *lines: str, options: ParseOptions | None = None) -> list[FlowRecord]:
    path.write_text("\n".join(lines) + "\n")
    (batch,) = read(path, format_named(name), options=options)
    assert batch.rejects == []
    found = [record for _, record in batch.records]
    assert all(isinstance(record, FlowRecord) for record in found)
    return found  # type: ignore[return-value]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows.txt"


def test_a_connection(path: Path) -> None:
    lines = [connection_line(1, duration="7", src_bytes="491"), connection_line(0)]
    normal, attack = records(path, "nsl_kdd", *lines, options=ParseOptions(start=START))
    assert (normal.ts, attack.ts) == (START, START + timedelta(seconds=1))
    assert (normal.label, attack.label) == ("0", "neptune")
    assert (normal.form, normal.protocol, normal.attributes) == ("nsl_kdd", "udp", {"difficulty": "21"})
    assert tuple(normal.features) == NSL_KDD_FEATURES
    assert (normal.features["duration"], normal.features["src_bytes"], normal.features["flag"]) == (7, 491, "SF")


def test_class_and_difficulty_may_be_missing_and_are_no_features(path: Path) -> None:
    bare = connection_line(1).rsplit(",", 2)[0]
    (found,) = records(path, "nsl_kdd", bare)
    assert (found.label, found.attributes, len(found.features)) == (None, None, 41)
    assert not {"label", "class", "difficulty"} & set(found.features)


def test_without_a_start_connections_are_of_now_in_their_order(path: Path) -> None:
    before = datetime.now(UTC)
    found = records(path, "nsl_kdd", *map(connection_line, range(50)))
    times = [record.ts for record in found]
    assert times == sorted(set(times))
    assert before <= times[0] <= times[-1] < datetime.now(UTC) + timedelta(seconds=1)


def test_times_go_on_where_a_file_was_loaded_before(path: Path) -> None:
    path.write_text("\n".join(map(connection_line, range(5))) + "\n")
    start = len((connection_line(0) + "\n" + connection_line(1) + "\n").encode())
    (batch,) = read(
        path, format_named("nsl_kdd"), options=ParseOptions(start=START), part=Part(start=start, lines_before=2)
    )
    assert [record.ts for _, record in batch.records] == [START + timedelta(seconds=n) for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1,2,3", "3 fields where a connection of NSL-KDD has 41 to 43"),
        (connection_line(1) + ",1", "44 fields"),
        (connection_line(1, src_bytes="many"), "src_bytes is 'many', which is no finite number"),
        (connection_line(1, src_bytes="nan"), "src_bytes is 'nan'"),
        (connection_line(1, count="inf"), "count is 'inf'"),
        (connection_line(1, service=""), "service is '', which is no name"),
        (connection_line(1, flag="0"), "flag is '0', which is no name"),
    ],
)
def test_a_connection_that_is_none_is_refused(line: str, complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        format_named("nsl_kdd").parser(ParseOptions())(line)
    assert complaint in str(refused.value)


def test_a_flow(path: Path) -> None:
    normal, attack = records(path, "cicflowmeter", FLOW_HEADER, flow_line(1), flow_line(0))
    assert (normal.label, attack.label) == ("0", "DoS Hulk")
    assert (normal.src_ip, normal.dst_port, normal.protocol) == ("10.0.0.1", 443, "udp")
    assert normal.ts - attack.ts == timedelta(minutes=1)
    assert set(normal.features) == set(CICFLOWMETER_FEATURES)
    assert (normal.features["Flow Bytes/s"], attack.features["Flow Bytes/s"]) == (12.5, None)


def test_older_names_other_case_and_blanks_are_the_same_columns(path: Path) -> None:
    (new,), (old,) = (records(path, "cicflowmeter", header, flow_line(3)) for header in (FLOW_HEADER, OLD_HEADER))
    assert old == new


def test_the_day_comes_first_in_a_slashed_time_and_a_year_in_one_with_hyphens(path: Path) -> None:
    assert records(path, "cicflowmeter", FLOW_HEADER, flow_line(3))[0].ts.isoformat() == "2026-03-02T08:03:00+00:00"
    stamp = flow_line(3).split(",")[5]
    (found,) = records(path, "cicflowmeter", FLOW_HEADER, flow_line(3).replace(stamp, "2017-07-03 11:57:51.590705"))
    assert found.ts == datetime(2017, 7, 3, 11, 57, 51, 590705, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "line", "complaints"),
    [
        (FLOW_HEADER.replace("Idle Max,", "").replace("Flow Duration,", ""), "", ["missing: Flow Duration, Idle Max"]),
        (FLOW_HEADER + ",Threat Level,", "", ["extra: Threat Level, (a column without a name)"]),
        ("a,b", "", ["missing: Flow Duration", "extra: a, b"]),
        (FLOW_HEADER, flow_line(1, **{"Idle Std": "high"}), ["hold no numbers: Idle Std ('high')"]),
    ],
)
def test_a_file_with_other_columns_is_refused_with_their_names(
    path: Path, header: str, line: str, complaints: list[str]
) -> None:
    path.write_text(f"{header}\n{line}\n")
    with pytest.raises(FileRefused) as refused:
        list(read(path, format_named("cicflowmeter")))
    assert all(complaint in str(refused.value) for complaint in complaints)


def test_later_lines_that_do_not_fit_are_rejects(path: Path) -> None:
    wrong = flow_line(2, **{"Idle Std": "high"})
    port = flow_line(3).replace(",443,", ",70000,")
    path.write_text("\n".join([FLOW_HEADER, flow_line(1), wrong, port, flow_line(4)[:-30], flow_line(5)]) + "\n")
    (batch,) = read(path, format_named("cicflowmeter"))
    assert [number for number, _ in batch.records] == [2, 6]
    reasons = [reject.reason for reject in batch.rejects]
    assert [reason.split(" (")[0] for reason in reasons[:2]] == [
        "no number in Idle Std",
        "the port '70000' is not from 0 to 65535",
    ]
    assert "fields where the header has" in reasons[2]


def test_both_are_recognised(path: Path) -> None:
    path.write_text("\n".join(map(connection_line, range(30))) + "\n")
    assert detect(path).name == "nsl_kdd"
    for header in (FLOW_HEADER, OLD_HEADER):
        path.write_text("\n".join([header, *map(flow_line, range(30))]) + "\n")
        assert detect(path).name == "cicflowmeter"
