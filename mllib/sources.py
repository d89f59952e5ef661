"""What can be scored: log lines, CI/CD runs and network flows. Each detector reads one source.

A source is a table, or the rows of one form in it. Rows of all tables have their ids from one sequence, so that an id
is one row, whatever its table: in frames and predictions it is called ``log_id``, in tables other than ``logs``
``row_id``. This list is closed: names from it, and from nowhere else, become parts of SQL statements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mllib.errors import BadInput

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["text", "texts", "number", "integer", "json"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of rows to be scored, in schema ``millrace``."""

    name: str
    row_id: str  # its id column
    row: str  # what one of its rows is called
    words: tuple[str, ...]  # columns that say what a row is


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table that a frame carries."""

    name: str
    kind: Kind = "text"  # json: an object or list, as text
    claimed_only: bool = False  # context rows come without it
    never_null: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Rows that a detector can read, and the columns of their frames. The name is what ``Detector.source`` gives."""

    name: str
    table: Table
    form: str | None = None
    """Only rows with this ``form``, where a table holds several."""
    columns: tuple[Column, ...]
    features: tuple[Column, ...] = ()
    """Columns of the frame that lie in the table's ``features jsonb``, each under its own name."""
    segments: tuple[str, ...]
    """Columns that tell rows apart when models are compared in parts. Rows of one hour that agree in the first come in
    bursts, so that they are no independent draws."""

    @property
    def schema(self) -> dict[str, pl.DataType | type[pl.DataType]]:
        """The columns of a frame in their order, with their types."""
        import polars as pl

        types: dict[Kind, pl.DataType | type[pl.DataType]] = {
            "text": pl.String,
            "texts": pl.List(pl.String),
            "number": pl.Float64,
            "integer": pl.Int32,
            "json": pl.String,
        }
        return {
            "log_id": pl.Int64,
            "ts": pl.Datetime("us", "UTC"),
            **{column.name: types[column.kind] for column in (*self.columns, *self.features)},
            "claimed": pl.Boolean,
        }


LOGS = Table(name="logs", row_id="log_id", row="log line", words=("message",))
PIPELINE_RUNS = Table(
    name="pipeline_runs", row_id="row_id", row="CI/CD run", words=("provider", "repository", "workflow", "branch")
)
NETWORK_FLOWS = Table(
    name="network_flows", row_id="row_id", row="network flow", words=("protocol", "src_ip", "dst_ip", "dst_port")
)
TABLES = (LOGS, PIPELINE_RUNS, NETWORK_FLOWS)

PIPELINE_FEATURES = (
    "duration_s",
    "log_lines",
    "log_bytes",
    "step_count",
    "failed_step_count",
    "error_lines",
    "warning_lines",
    "retry_count",
    "distinct_commands",
    "dependency_installs",
    "distinct_network_hosts",
    "remote_script_executions",
    "privilege_changes",
    "secret_like_tokens",
    "environment_dumps",
    "image_pulls",
    "test_failures",
)
"""The numbers that a CI/CD run is judged by, each a column of ``pipeline_runs``."""

NSL_KDD_TEXTS = ("protocol_type", "service", "flag")

NSL_KDD_FEATURES = (
    "duration",
    "protocol_type",
    "service",
    "flag",
    "src_bytes",
    "dst_bytes",
    "land",
    "wrong_fragment",
    "urgent",
    "hot",
    "num_failed_logins",
    "logged_in",
    "num_compromised",
    "root_shell",
    "su_attempted",
    "num_root",
    "num_file_creations",
    "num_shells",
    "num_access_files",
    "num_outbound_cmds",
    "is_host_login",
    "is_guest_login",
    "count",
    "srv_count",
    "serror_rate",
    "srv_serror_rate",
    "rerror_rate",
    "srv_rerror_rate",
    "same_srv_rate",
    "diff_srv_rate",
    "srv_diff_host_rate",
    "dst_host_count",
    "dst_host_srv_count",
    "dst_host_same_srv_rate",
    "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate",
    "dst_host_srv_diff_host_rate",
    "dst_host_serror_rate",
    "dst_host_srv_serror_rate",
    "dst_host_rerror_rate",
    "dst_host_srv_rerror_rate",
)
"""What a connection in NSL-KDD's form is described by, in the order of its files."""

CICFLOWMETER_FEATURES = (
    "Flow Duration",
    "Total Fwd Packet",
    "Total Bwd packets",
    "Total Length of Fwd Packet",
    "Total Length of Bwd Packet",
    *(f"{way} Packet Length {figure}" for way in ("Fwd", "Bwd") for figure in ("Max", "Min", "Mean", "Std")),
    "Flow Bytes/s",
    "Flow Packets/s",
    *(f"Flow IAT {figure}" for figure in ("Mean", "Std", "Max", "Min")),
    *(f"{way} IAT {figure}" for way in ("Fwd", "Bwd") for figure in ("Total", "Mean", "Std", "Max", "Min")),
    "Fwd PSH Flags",
    "Bwd PSH Flags",
    "Fwd URG Flags",
    "Bwd URG Flags",
    "Fwd RST Flags",
    "Bwd RST Flags",
    "Fwd Header Length",
    "Bwd Header Length",
    "Fwd Packets/s",
    "Bwd Packets/s",
    *(f"Packet Length {figure}" for figure in ("Min", "Max", "Mean", "Std", "Variance")),
    *(f"{flag} Flag Count" for flag in ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "CWR", "ECE")),
    "Down/Up Ratio",
    "Average Packet Size",
    "Fwd Segment Size Avg",
    "Bwd Segment Size Avg",
    *(f"{way} {figure} Avg" for way in ("Fwd", "Bwd") for figure in ("Bytes/Bulk", "Packet/Bulk", "Bulk Rate")),
    "Subflow Fwd Packets",
    "Subflow Fwd Bytes",
    "Subflow Bwd Packets",
    "Subflow Bwd Bytes",
    "FWD Init Win Bytes",
    "Bwd Init Win Bytes",
    "Fwd Act Data Pkts",
    "Fwd Seg Size Min",
    *(f"{state} {figure}" for state in ("Active", "Idle") for figure in ("Mean", "Std", "Max", "Min")),
    "ICMP Code",
    "ICMP Type",
    "Total TCP Flow Time",
)
"""What CICFlowMeter measures of a flow, under its own names, in the order of its files."""

_FLOW = (Column("src_ip"), Column("dst_ip"), Column("dst_port", "integer"), Column("protocol"))

SOURCES = {
    source.name: source
    for source in (
        Source(
            name="logs",
            table=LOGS,
            columns=(
                Column("level"),
                Column("service"),
                Column("message", never_null=True),
                Column("response_time_ms", "number"),
                Column("status_code", "integer"),
            ),
            segments=("service", "level"),
        ),
        Source(
            name="pipeline_runs",
            table=PIPELINE_RUNS,
            columns=(
                *map(Column, ("provider", "repository", "branch", "workflow", "language")),
                *(Column(name, "number") for name in PIPELINE_FEATURES),
                Column("hosts", "texts"),
                Column("evidence", "json", claimed_only=True),
            ),
            segments=("repository", "provider"),
        ),
        Source(
            name="nsl_kdd_flows",
            table=NETWORK_FLOWS,
            form="nsl_kdd",
            columns=_FLOW,
            features=tuple(Column(name, "text" if name in NSL_KDD_TEXTS else "number") for name in NSL_KDD_FEATURES),
            segments=("protocol", "service"),
        ),
        Source(
            name="cicflowmeter_flows",
            table=NETWORK_FLOWS,
            form="cicflowmeter",
            columns=_FLOW,
            features=tuple(Column(name, "number") for name in CICFLOWMETER_FEATURES),
            segments=("protocol",),
        ),
    )
}

CLAIMED_ONLY = frozenset(c.name for source in SOURCES.values() for c in source.columns if c.claimed_only)
"""Columns that context rows come without, of all sources."""


def source(name: str) -> Source:
    """The source of that name. Raises BadInput, which lists those there are."""
    if name not in SOURCES:
        raise BadInput(f"There is no source of rows named {name!r}. Known: {', '.join(SOURCES)}.")
    return SOURCES[name]


def table(name: str) -> Table:
    """The table of that name. Raises BadInput, which lists those there are."""
    for known in TABLES:
        if known.name == name:
            return known
    raise BadInput(f"There is no table of rows named {name!r}. Known: {', '.join(known.name for known in TABLES)}.")
