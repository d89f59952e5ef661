"""What ``make run`` does: starts the stack, brings logs in, trains, scores, and says where to look.

Done again, it finds what is there and only does what is missing.
"""

from __future__ import annotations

import argparse
import glob
import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mllib import settings
from mllib.detectors import names
from mllib.errors import BadInput, MillraceError, StackProblem
from mllib.local import stack, state
from mllib.local.airflow_api import AirflowApi
from mllib.local.progress import shown
from mllib.local.summary import MAIN, plain, print_summary

if TYPE_CHECKING:
    from mllib.demo.files import DemoFile

File = TypeVar("File")

UNFINISHED = ".part"  # the ingest passes over such names
SYNTHETIC = "synthetic"  # a file of that name says that demo logs went into the database
INGEST = "ingest"


def run(home: Path, *, logs: Path | None = None, log_format: str = "auto", port: int | None = None) -> None:
    """Bring the stack in ``home`` to its first predictions, out of ``logs`` or out of generated demo logs.

    Raises a MillraceError that says what is wrong; what was done until then stays; the next call goes on from there.
    """
    if logs is not None and not logs.exists():
        raise BadInput(f"There is no file {logs}. Give the path of your log file: make run LOGS=path FORMAT=bgl.")
    print(f"Millrace, state in {home}", flush=True)
    state.prepare_home(home)
    settings.landing().mkdir(parents=True, exist_ok=True)
    with state.lock(
        home, lambda: print("  Another `make run` is at work here; waiting for it.", flush=True), name="run"
    ):
        _run(home, logs, log_format, port)


def _run(home: Path, logs: Path | None, log_format: str, port: int | None) -> None:
    with ThreadPoolExecutor(1) as pool:
        # Written while the stack starts.
        own, demo = (pool.submit(_own_files, logs), None) if logs else (None, pool.submit(_demo_files, home))
        status = stack.up(home, port, step=shown)
        if port and status.web_url and not status.web_url.endswith(f":{port}"):
            print(f"  The web address is {status.web_url}: port {port} was taken, or the stack was running already.")
        copies = _wait_for_files(own, "Copying the log files") if own else []
        samples = _wait_for_files(demo, "Writing synthetic demo data") if demo else []
    api, dsn = stack.api(home), stack.current_dsn(home)
    _wait_for_dags(api)
    before = _summaries(dsn)
    rows = sum(now["rows"] for now in before.values())
    if logs:
        _ingest_own(api, copies, log_format)
    elif rows:
        print("  Found the rows of an earlier run; nothing to ingest.")
    else:
        _ingest_demo(api, home, samples)
    fed = {name: now for name, now in _summaries(dsn).items() if now["rows"]}
    untrained = [f"retrain_{name}" for name, now in fed.items() if now["champion"] is None]
    for dag_id, run_id in _run_dags(api, untrained, "Training and judging a first model").items():
        for reason in api.skipped(dag_id, run_id):
            print(f"  Nothing was trained: {plain(reason)}")
    waiting = []
    for name, now in _summaries(dsn).items():
        if now["champion"] is None:
            continue
        if now["rows"] > before[name]["rows"] or not now["scored"]:
            waiting.append(f"score_{name}")
        else:
            print(f"  Found {now['scored']:,} rows scored by {name}; from here on the hourly runs score what is new.")
    _run_dags(api, waiting, "Scoring the new rows")
    for dag_id, dag in api.dags().items():
        if dag["is_paused"]:
            api.pause(dag_id, paused=False)
    print_summary(home, status, _summaries(dsn), synthetic=(home / "run" / SYNTHETIC).exists())


def _summaries(dsn: str) -> dict[str, dict[str, Any]]:
    """How things stand with each detector, the main one first."""
    from mllib.jobs.overview import summary  # here: SQLAlchemy takes a moment, and the stack can start meanwhile
    from mllib.store.database import engine_for

    ordered = sorted(names(), key=lambda name: (name != MAIN, name))
    return {name: summary(engine_for(dsn), detector=name) for name in ordered}


def _demo_files(home: Path) -> list[DemoFile]:
    """Write the demo data beside the landing folder, unless that holds files already: those are what to work on."""
    from mllib.demo.files import generate_all  # here: numpy takes a moment

    return [] if any(settings.landing().iterdir()) else generate_all(home / "run" / "demo")


def _ingest_demo(api: AirflowApi, home: Path, samples: list[DemoFile]) -> None:
    dated = [sample for sample in samples if sample.start is None]
    for sample in dated:
        shutil.move(sample.path, settings.landing() / sample.path.name)
    if samples:
        (home / "run" / SYNTHETIC).touch()
    _run_dag(api, INGEST, "Ingesting", run_id=_unpaused(api, INGEST))
    for sample in samples:
        if sample.start is not None:
            name = sample.path.name
            shutil.move(sample.path, settings.landing() / name)
            conf = {"files": name, "start": sample.start.isoformat()}
            _run_dag(api, INGEST, f"Ingesting {name}", conf)


def _own_files(logs: Path) -> list[Path]:
    """Copy the user's file, or the files of the user's folder, into the landing folder, under names it passes over."""
    copies = []
    try:
        for source in sorted(path for path in logs.iterdir() if path.is_file()) if logs.is_dir() else [logs]:
            copies.append(settings.landing() / f"{source.name}{UNFINISHED}")
            shutil.copyfile(source, copies[-1])
    except OSError as error:
        raise BadInput(f"{error.filename} cannot be copied to {settings.landing()}: {error.strerror}.") from error
    return copies


def _ingest_own(api: AirflowApi, copies: list[Path], log_format: str) -> None:
    # The run that may start by itself would read the files too, but in the format that it guesses.
    if run_id := _unpaused(api, INGEST):
        _run_dag(api, INGEST, "Waiting for a scheduled run", run_id=run_id)
    for copy in copies:
        path = copy.rename(copy.with_name(copy.name.removesuffix(UNFINISHED)))
        # A file that was ingested before is known by its digest, and passed over.
        conf = {"files": glob.escape(path.name), "format": log_format}
        _run_dag(api, INGEST, f"Ingesting {path.name}", conf)


def _wait_for_files(files: Future[list[File]], title: str) -> list[File]:
    if files.done():
        return files.result()
    with shown(title):
        return files.result()


def _wait_for_dags(api: AirflowApi) -> None:
    """Wait until Airflow has read the DAG files. Raises StackProblem with the errors when it cannot."""
    wanted = {INGEST, *(f"{kind}_{name}" for kind in ("retrain", "score") for name in names())}
    deadline = time.monotonic() + 90
    if wanted <= api.dags().keys():
        return
    with shown("Waiting for Airflow to read the DAG files"):
        while missing := wanted - api.dags().keys():
            if errors := api.import_errors():
                raise StackProblem(f"A DAG file cannot be read: {'; '.join(errors)}")
            if time.monotonic() > deadline:
                raise StackProblem(f"Airflow does not show {', '.join(sorted(missing))}. See `make logs`.")
            time.sleep(0.3)


def _unpaused(api: AirflowApi, dag_id: str) -> str | None:
    """Unpause a DAG; return the id of the run that starts by itself then, if its last time was just now."""
    if not api.dags()[dag_id]["is_paused"]:
        return None
    known = {run["dag_run_id"] for run in api.runs(dag_id)}
    api.pause(dag_id, paused=False)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        time.sleep(0.3)
        if started := {run["dag_run_id"] for run in api.runs(dag_id)} - known:
            return str(started.pop())
    return None


def _run_dag(
    api: AirflowApi, dag_id: str, title: str, conf: dict[str, Any] | None = None, *, run_id: str | None = None
) -> str:
    """Start a run of a DAG, or take the one named, and wait for its end. Returns the run's id.

    Raises StackProblem when the run fails.
    """
    with shown(f"{title} ({dag_id})") as note:
        run_id = run_id or api.trigger(dag_id, conf)
        # Triggered first: were it unpaused first, a scheduled run could come before this one.
        api.pause(dag_id, paused=False)

        def progress(text: str) -> None:
            note.now = text

        finished = api.wait(dag_id, run_id, seconds=3600, progress=progress)
    if finished["state"] != "success":
        reasons = "; ".join(api.failures(dag_id, run_id)) or "no task says why"
        raise StackProblem(f"The run of {dag_id} failed: {reasons}. See {api.url}/dags/{dag_id}/runs/{run_id}.")
    return run_id


def _run_dags(api: AirflowApi, dag_ids: list[str], title: str) -> dict[str, str]:
    """Start a run of each DAG, all at once, and wait for their ends. Returns the runs' ids by DAG."""
    started = {dag_id: api.trigger(dag_id) for dag_id in dag_ids}
    for dag_id in dag_ids:
        api.pause(dag_id, paused=False)
    return {dag_id: _run_dag(api, dag_id, title, run_id=run_id) for dag_id, run_id in started.items()}


def main(arguments: list[str] | None = None) -> int:
    """The command behind ``make run``. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make run", description="Start the local stack and run the main job.")
    parser.add_argument("--logs", type=Path, help="your own log file or a folder of them, instead of demo logs")
    parser.add_argument("--format", default="auto", help="the format of --logs, for example bgl (default: auto)")
    parser.add_argument("--port", type=int, help="where to put Airflow's pages (default: 8080, or the next free port)")
    chosen = parser.parse_args(arguments)
    try:
        run(settings.home(), logs=chosen.logs, log_format=chosen.format, port=chosen.port)
    except MillraceError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. What has started goes on; `make run` continues, `make stop` ends it.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
