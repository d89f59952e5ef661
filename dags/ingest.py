"""The DAG that loads log files out of the landing folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from dags.common import DEFAULTS, NEVER, engine, final_states, moment_param, read_moment
from mllib import settings

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

EVERYTHING = "*"
MOST_FILES = 500
"""In one run; the next takes the others. Airflow maps a task no more than 1,024 times."""

DOC = """
### Loads log files from the landing folder

Four times an hour, every file of the landing folder that is new or has changed is loaded, one transaction a file: it is
in as a whole, or not at all. Files stay where they are; one whose content was loaded before is skipped by its digest.

- A file that has **grown** goes on after the last line that was loaded, also under another name, as after a rotation.
  A last line without an end waits until the file has not been changed for a minute, or is named in `files`.
- A **new log** in the place of an older one, with line numbers for ids, gets a source of its own, such as `app.2`.
- A line that cannot be read goes to `millrace.ingest_rejects` with its bytes and the reason; the good lines are in.
- A file that cannot be taken as a whole makes its task **red**, once; the log says what to do. Trigger with its name in
  `files`, and perhaps another `format` or `source`, to have it tried again.
- Names that start with a dot or end in `.part`, `.tmp` or `.swp` are left alone, and so are links.

Any program may also insert into `millrace.logs` by plain SQL; only `ts` and `message` are required.
"""


def landing() -> Path | ObjectStoragePath:
    """The landing folder, on this machine or wherever a URI in ``MILLRACE_LANDING`` leads."""
    uri = settings.landing_uri()
    if uri is None:
        return settings.landing()
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(uri)


@dag(
    dag_id="ingest",
    schedule=CronTriggerTimetable("5,20,35,50 * * * *", timezone="UTC", run_immediately=NEVER),
    description="Loads new log files from the landing folder",
    doc_md=DOC,
    tags=["millrace", "ingest"],
    params={
        "files": Param(EVERYTHING, type="string", minLength=1, description="File name, or pattern such as *.log.gz."),
        "format": Param("auto", type="string", description="Log format, or auto."),
        "source": Param(None, type=["null", "string"], description="Name of the source. Empty: the file's name."),
        "year": Param(None, type=["null", "integer"], description="Year of the first line, where times have none."),
        "start": moment_param("Time of the first line, in formats without times."),
        "labels": Param(True, type="boolean", description="Also read the labels inside the format."),
    },
    max_active_runs=1,
    **DEFAULTS,
)
def ingest() -> None:
    @task(doc_md="Lists the files that are new or have changed.")
    def find_files() -> list[str]:
        from mllib.jobs.landing import pending

        with final_states():
            folder = landing()
            files = pending(engine(), folder, get_current_context()["params"]["files"])
        log.info("%s files to load in %s, at most %s of them now.", len(files), folder, MOST_FILES)
        return [path.name for path in files[:MOST_FILES]]

    @task(map_index_template="{{ file_name }}", doc_md="Loads one file in one transaction.")
    def load_file(name: str) -> dict[str, Any]:
        from mllib.ingest.base import ParseOptions
        from mllib.jobs.intake import ingest_file
        from mllib.jobs.landing import landed_file

        context = get_current_context()
        context["file_name"] = name
        params = context["params"]
        with final_states():
            loaded = ingest_file(
                engine(),
                landed_file(landing(), name),
                format_name=params["format"],
                source=params["source"],
                with_labels=params["labels"],
                options=ParseOptions(year=params["year"], start=read_moment(params["start"])),
                whole=params["files"] != EVERYTHING,
                rotating=True,
            )
        return {"rows": loaded.rows, "rejected": loaded.rejected, "labels": loaded.labels}

    load_file.expand(name=find_files())


ingest()
