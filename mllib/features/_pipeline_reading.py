"""The lines of a CI/CD log, gathered block by block.

Patterns over the whole log run in polars, on blocks of at most 4 MiB: time grows with the length of the log, memory
with the block. Python looks at what they extract, of which there is a bounded number in each block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import polars as pl

from mllib.features import _pipeline_commands as commands
from mllib.features import _pipeline_patterns as patterns
from mllib.features import _pipeline_secrets as secrets
from mllib.features._pipeline_patterns import linear

Contact = Literal["command", "transfer", "package", "mention"]
Kind = Literal["remote_script", "network_host", "secret", "privilege", "environment_dump", "image_pull"]

CONTACTS: tuple[Contact, ...] = ("command", "transfer", "package", "mention")
"""The closest first: a command names the host, something is transferred, a package manager fetches, a mention."""

BLOCK = 4 * 1024 * 1024
"""Characters looked at together: what bounds the memory."""
MAX_NAMED = 500
"""Hosts by kind of contact, changed rights and downloaded files that are kept by name. Others are not counted."""
MAX_DISTINCT = 20_000
"""Distinct commands and secrets that are counted; also the candidates in a block that Python looks at."""
MAX_EXCERPTS = 5
"""Excerpts kept of each kind."""
MANY_VARIABLES = 20
"""That many variables one after the other are a dump of the environment, whatever printed them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """One place in a log that speaks of security."""

    line: int  # 1 is the first
    text: str  # without secrets


@dataclass
class Reading:
    """What is gathered over the blocks of one log."""

    counts: Counter[str] = field(default_factory=Counter)
    commands: set[str] = field(default_factory=set)
    secrets: set[int] = field(default_factory=set)  # hashes: no secret is kept
    privileges: set[str] = field(default_factory=set)
    hosts: dict[Contact, Counter[str]] = field(default_factory=lambda: {contact: Counter() for contact in CONTACTS})
    excerpts: dict[Kind, list[Excerpt]] = field(default_factory=dict)
    saved: set[str] = field(default_factory=set)  # names of files that were downloaded and not yet run
    first: str | None = None  # time stamps of lines
    last: str | None = None
    began: int | None = None  # nanoseconds, as Travis writes them
    ended: int | None = None
    repository: str | None = None

    def duration_s(self) -> float | None:
        """Seconds from the first time in the log to the last, None where there are not two."""
        if self.began is not None and self.ended is not None:
            return max(self.ended - self.began, 0) / 1e9
        if self.first is None or self.last is None:
            return None
        try:
            between = datetime.fromisoformat(self.last) - datetime.fromisoformat(self.first)
        except ValueError:  # the 31st of February
            return None
        return max(between.total_seconds(), 0.0)

    def note(self, kind: Kind, number: int, line: str) -> None:
        """Keep an excerpt of the line, unless there are enough of its kind."""
        kept = self.excerpts.setdefault(kind, [])
        if len(kept) < MAX_EXCERPTS:
            kept.append(Excerpt(line=number, text=secrets.excerpt(line)))

    def meet(self, contact: Contact, host: str | None, times: int = 1) -> None:
        """Count a host, unless it is a new one and there are enough."""
        met = self.hosts[contact]
        if host and (host in met or len(met) < MAX_NAMED):
            met[host] += times


def read(text: str) -> Reading:
    """Gather a whole log. Half characters (lone surrogates) count as question marks."""
    reading = Reading()
    number = 1
    for block in _blocks(text):
        encoded = block.encode("utf-8", "replace")
        reading.counts["log_bytes"] += len(encoded)
        frame = _lines(encoded.decode("utf-8"), number)
        number += block.count("\n")
        if len(frame):
            _gather(frame, reading)
    reading.counts["log_lines"] = number - 1 + bool(text and not text.endswith("\n"))
    return reading


def _blocks(text: str) -> Iterator[str]:
    """Slices of at most BLOCK characters that end with a line where there is one, else with a word."""
    begin = 0
    while begin < len(text):
        end = min(begin + BLOCK, len(text))
        if end < len(text):
            for separator in ("\n", "\r", " "):
                at = text.rfind(separator, begin, end)
                if at > begin:
                    end = at + 1
                    break
        yield text[begin:end]
        begin = end


def _lines(block: str, number: int) -> pl.DataFrame:
    """The lines that are not empty, without escape sequences and time stamps, and what each is."""
    col = pl.col("line")
    # Colours that GitHub gives the commands of a step become a prompt, before the codes go. What a terminal would write
    # over stays: a carriage return must not hide a command.
    prompted = col.str.replace(r"^((?:\S{20,40}Z )?)\x1b\[36;1m", "${1}$$ ").str.replace_all(r"\x1b\[0?K", "\r")
    frame = (
        pl.DataFrame({"line": block.split("\n")}, schema={"line": pl.String})
        .with_row_index("number", offset=number)
        .with_columns(prompted.str.replace_all(patterns.ANSI, "").str.split("\r"))
        .explode("line", empty_as_null=False)
        .filter(col.str.len_bytes() > 0)
        .with_columns(stamp=col.str.extract(linear(patterns.STAMP)))
    )
    unstamped = pl.when(pl.col("stamp").is_null()).then("line").otherwise(col.str.replace(linear(patterns.STAMP), ""))
    frame = frame.with_columns(unstamped.alias("line"))

    def has(*any_of: str) -> pl.Expr:
        return pl.any_horizontal(col.str.contains(linear(pattern)) for pattern in any_of)

    return frame.with_columns(
        prompt=has(patterns.COMMAND),
        tool=has(patterns.NETWORK_TOOL),
        error_lines=has(patterns.ERROR) & ~has(patterns.NO_ERROR),
        remote=has(patterns.REMOTE_SCRIPT),
        saved=has(patterns.SAVED),
        privilege=has(patterns.PRIVILEGE),
        dump=has(patterns.ENVIRONMENT_DUMP),
        declared=has(patterns.DECLARED),
        pull=has(patterns.IMAGE_PULL),
        host=col.str.contains("://", literal=True) | has(patterns.BARE_HOST),
        secret=has(secrets.SHAPED, secrets.KEYED, secrets.IN_ADDRESS),
        travis=has(r"^travis_(?:fold|time):"),
        folds=has(r"^travis_fold:start"),
        steps=has(r"^travis_time:start") | has(r"^##\[group\] *Run "),
        github=has(r"^##\[") | pl.col("stamp").is_not_null(),
        **{name: has(pattern) for name, pattern in patterns.COUNTED.items()},
    )


def _gather(frame: pl.DataFrame, reading: Reading) -> None:
    counted = ("error_lines", *patterns.COUNTED, "travis", "folds", "steps", "github")
    for name, count in frame.select(pl.col(counted).sum()).row(0, named=True).items():
        reading.counts[name] += count
    stamps = frame["stamp"].drop_nulls()
    if len(stamps):
        reading.first, reading.last = reading.first or stamps[0], stamps[-1]
    if reading.repository is None:
        cloned = frame["line"].str.extract(linear(patterns.CLONED)).drop_nulls()
        reading.repository = cloned[0][:200].removesuffix(".git") if len(cloned) else None
    _times(frame, reading)
    _commands(frame, reading)
    _hosts(frame, reading)
    _remote_scripts(frame, reading)
    _privileges(frame, reading)
    _dumps_and_pulls(frame, reading)
    _secrets(frame, reading)


def _times(frame: pl.DataFrame, reading: Reading) -> None:
    lines = frame["line"].filter(frame["line"].str.starts_with("travis_time:end"))
    if not len(lines):
        return
    pairs = lines.str.extract_groups(linear(patterns.TIMED)).struct.unnest().cast(pl.Int64, strict=False).drop_nulls()
    for began, ended in pairs.iter_rows():
        reading.began = began if reading.began is None else min(began, reading.began)
        reading.ended = ended if reading.ended is None else max(ended, reading.ended)


def _commands(frame: pl.DataFrame, reading: Reading) -> None:
    # Numbers and hashes differ from run to run: they make no other command.
    found = frame.filter("prompt")["line"].str.head(300).str.replace(linear(patterns.COMMAND), "")
    for command in found.str.replace_all(r"[0-9a-f]*\d[0-9a-f]*", "0").unique(maintain_order=True).head(MAX_DISTINCT):
        if len(reading.commands) < MAX_DISTINCT:
            reading.commands.add(command)


def _hosts(frame: pl.DataFrame, reading: Reading) -> None:
    rows = frame.filter(pl.col("host") | (pl.col("tool") & pl.col("line").str.contains(r"[\w-]\.[\w-]")))
    if not len(rows):
        return
    line = pl.col("line").str
    command = (pl.col("prompt") | pl.col("tool")) & ~line.contains(patterns.NO_CONTACT)
    transfer = line.contains(linear(patterns.TRANSFER)) & ~line.contains(linear(patterns.PAGE_TO_READ))
    contact = pl.when(command).then(pl.lit("command")).when(line.contains(linear(patterns.PACKAGE)))
    rows = rows.select(
        "number",
        "line",
        "tool",
        contact=contact.then(pl.lit("package")).when(transfer).then(pl.lit("transfer")).otherwise(pl.lit("mention")),
    )
    addresses = _found(rows, patterns.URL, "contact").group_by("contact", "found", maintain_order=True).len()
    for kind, address, times in addresses.head(MAX_DISTINCT).iter_rows():
        reading.meet(kind, commands.address_host(address), times)
    bare = _found(rows, patterns.BARE_HOST, "contact").unique(maintain_order=True)
    for kind, found in bare.head(MAX_DISTINCT).iter_rows():
        reading.meet(kind, commands.bare_host(found))
    for found in _distinct(rows.filter("tool")):
        for host in commands.argument_hosts(found):
            reading.meet("command", host)
    named = rows.filter(pl.col("contact") == "command").select("number", "line").head(MAX_DISTINCT)
    for number, whole in named.iter_rows():
        if len(reading.excerpts.get("network_host", ())) == MAX_EXCERPTS:
            break
        if "://" in whole or any(commands.argument_hosts(whole[: secrets.MAX_LINE])):
            reading.note("network_host", number, whole)


def _remote_scripts(frame: pl.DataFrame, reading: Reading) -> None:
    rows = frame.filter("remote")
    reading.counts["remote_script_executions"] += len(rows)
    _note(reading, "remote_script", rows)
    # In two steps: a file is downloaded in one line and run in a later one.
    if not reading.saved and not frame["saved"].any():
        return
    runs = pl.col("line").str.contains(linear(patterns.RUN_FILE))
    steps = frame.filter(~pl.col("remote") & (pl.col("saved") | runs)).select("number", "line", "saved")
    for number, whole, saved in steps.head(MAX_DISTINCT).iter_rows():
        line = whole[: secrets.MAX_LINE]
        for name in commands.run_files(line):
            if name in reading.saved:
                reading.saved.discard(name)
                reading.counts["remote_script_executions"] += 1
                reading.note("remote_script", number, whole)
        if saved and len(reading.saved) < MAX_NAMED:
            reading.saved.update(commands.saved_files(line))


def _privileges(frame: pl.DataFrame, reading: Reading) -> None:
    rows = frame.filter("privilege")
    reading.counts["privilege_changes"] += len(rows)
    _note(reading, "privilege", rows)
    for line in _distinct(rows):
        for stem in commands.privilege_stems(line):
            if len(reading.privileges) < MAX_NAMED:
                reading.privileges.add(stem)


def _dumps_and_pulls(frame: pl.DataFrame, reading: Reading) -> None:
    dumps, pulls = frame.filter("dump"), frame.filter("pull")
    declared = frame.select(run=pl.col("declared").rle())["run"].struct.unnest()
    blocks = int((declared["value"] & (declared["len"] >= MANY_VARIABLES)).sum())
    reading.counts["dumps_ordered"] += len(dumps)
    reading.counts["dumps_printed"] += blocks
    _note(reading, "environment_dump", dumps)
    ordered = len(pulls.filter(pl.col("line").str.contains(linear(patterns.IMAGE_PULL_COMMAND))))
    reading.counts["pulls_ordered"] += ordered
    reading.counts["pulls_told"] += len(pulls) - ordered
    _note(reading, "image_pull", pulls)


_SECRETS: tuple[tuple[str, Callable[[str], str | None]], ...] = (
    (secrets.SHAPED, secrets.shaped_secret),
    (secrets.KEYED, secrets.keyed_secret),
    (secrets.IN_ADDRESS, secrets.address_secret),
)


def _secrets(frame: pl.DataFrame, reading: Reading) -> None:
    rows = frame.filter("secret")
    for pattern, value_of in _SECRETS if len(rows) else ():
        found = _found(rows, pattern, "number", "line").unique("found", maintain_order=True).head(MAX_DISTINCT)
        for number, line, text in found.iter_rows():
            value = value_of(text[: secrets.MAX_FOUND])
            if value and hash(value) not in reading.secrets and len(reading.secrets) < MAX_DISTINCT:
                reading.secrets.add(hash(value))
                reading.note("secret", number, line)


def _found(rows: pl.DataFrame, pattern: str, *keep: str) -> pl.DataFrame:
    """Each occurrence of the pattern, with columns of its line."""
    everywhere = rows.select(*keep, found=pl.col("line").str.extract_all(linear(pattern)))
    return everywhere.explode("found", empty_as_null=False, keep_nulls=False).drop_nulls("found")


def _distinct(rows: pl.DataFrame) -> pl.Series:
    return rows["line"].str.head(secrets.MAX_LINE).unique(maintain_order=True).head(MAX_DISTINCT)


def _note(reading: Reading, kind: Kind, rows: pl.DataFrame) -> None:
    for number, line in rows.select("number", "line").head(MAX_EXCERPTS).iter_rows():
        reading.note(kind, number, line)
