"""The documentation names everything there is, its links lead somewhere, and its SQL runs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mllib.cli import _parser
from mllib.detectors import names as detector_names
from mllib.ingest import formats
from mllib.settings import PROJECT

README = PROJECT / "README.md"
OPERATIONS = PROJECT / "docs" / "operations.md"
ANALYSTS = PROJECT / "docs" / "analysts.md"
PAGES = [README, PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]

COMMENT = re.compile(r"^comment on column analytics\.(\w+)\.(\w+) is", re.MULTILINE)
SQL = re.compile(r"^( *)```sql\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def page_id(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def code(page: Path) -> str:
    """What stands between backticks, the only place where a name counts as named."""
    text = page.read_text()
    return "\n".join(re.findall(r"```.*?```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))


def mentions(page: Path, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code(page)) is not None


def section(page: Path, title: str) -> str:
    _, found, rest = page.read_text().partition(f"\n## {title}\n")
    assert found, f"{page_id(page)} has no section {title!r}"
    return rest.partition("\n## ")[0]


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices)


def view_columns() -> dict[str, set[str]]:
    columns: dict[str, set[str]] = {path.stem: set() for path in (PROJECT / "sql" / "views").glob("*.sql")}
    for path in (PROJECT / "sql" / "views").glob("*.sql"):
        for view, column in COMMENT.findall(path.read_text()):
            columns[view].add(column)
    return columns


def sql_blocks() -> dict[str, str]:
    """Each block of SQL by its page and its number there."""
    return {
        f"{page_id(page)}-{number}": block
        for page in PAGES
        for number, (_, block) in enumerate(SQL.findall(page.read_text()), start=1)
    }


@pytest.mark.parametrize("view", sorted(view_columns()))
def test_every_analytics_view_is_documented_with_exactly_its_columns(view: str) -> None:
    columns = view_columns()[view]

    described = set(re.findall(r"^\| `(\w+)` \|", section(ANALYSTS, f"analytics.{view}"), re.MULTILINE))

    assert columns
    assert described == columns


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_documented_with_its_options(command: str) -> None:
    rows = re.findall(rf"^\| `{command}` \|.*$", section(OPERATIONS, "The command line"), re.MULTILINE)
    options = {
        option
        for action in commands()[command]._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }

    assert len(rows) == 1
    assert options == set(re.findall(r"`(--[\w-]+)`", rows[0]))


@pytest.mark.parametrize("name", sorted(formats()))
def test_every_log_format_is_in_the_readme(name: str) -> None:
    assert mentions(README, name)


@pytest.mark.parametrize("name", detector_names())
def test_every_detector_and_its_dags_are_documented(name: str) -> None:
    assert mentions(README, name)
    assert mentions(OPERATIONS, f"score_{name}")
    assert mentions(OPERATIONS, f"retrain_{name}")


def test_every_make_target_is_documented() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE)

    assert len(targets) > 5
    assert [target for target in targets if not mentions(OPERATIONS, f"make {target}")] == []


def test_every_environment_variable_of_the_settings_is_documented() -> None:
    variables = re.findall(r"environ\.get\(\"(\w+)\"\)", (PROJECT / "mllib" / "settings.py").read_text())

    assert variables
    assert [variable for variable in variables if not mentions(OPERATIONS, variable)] == []


def test_every_variable_of_the_compose_file_is_in_the_example_and_the_other_way_round() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (PROJECT / "docker-compose.yml").read_text()))
    given = set(re.findall(r"^(\w+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))

    assert used == given


def test_the_example_holds_no_secret() -> None:
    lines = (PROJECT / ".env.example").read_text().splitlines()

    assert [line for line in lines if re.match(r"\w*(PASSWORD|SECRET|KEY)\w*=.", line)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_names_a_folder_of_the_machine_it_was_written_on(page: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:home|root|work|tmp)/\S*", page.read_text()) == []


@pytest.mark.parametrize("block", sql_blocks().values(), ids=sql_blocks())
def test_sql_in_the_documentation_runs(engine: Engine, block: str) -> None:
    # Each statement by itself, as a client sends it: one of them commits on its way.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql(block.replace("%", "%%"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings: lower case, blanks as hyphens, without punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
