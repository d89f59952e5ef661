"""The ways Millrace says no. Every message says what is wrong and what to do about it."""

from __future__ import annotations


class MillraceError(Exception):
    """Something a user can act on. Its message is one clear sentence or two, fit to be shown as it is."""


class NoChampion(MillraceError):
    """The detector has no champion, so there is nothing to score with."""

    def __init__(self, detector: str) -> None:
        super().__init__(
            f"{detector} has no champion yet. Train one with `millrace train {detector}` "
            f"(in Airflow: trigger retrain_{detector}); nothing was claimed, so no row is lost."
        )


class UnknownDetector(MillraceError):
    """A name that no detector has."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"There is no detector named {name!r}. Known: {', '.join(known)}.")


class NothingToTrainOn(MillraceError):
    """The training window holds too few rows to fit a model."""


class PromotionConflict(MillraceError):
    """The champion changed between the judgement and the promotion."""


class BadArtifact(MillraceError):
    """A stored model's bytes do not match their digest or their declared form."""


class BadInput(MillraceError):
    """A file, an argument or a row that cannot be used as it is."""


class NothingToScore(BadInput):
    """A window that holds nothing that could be scored."""


class PlanOutdated(MillraceError):
    """The rows or the models that a plan was made for are not those of now."""


class ShardsMissing(MillraceError):
    """A run cannot be published, because a part of it is not scored yet."""

    def __init__(self, run_id: int, missing: int) -> None:
        super().__init__(
            f"Run {run_id} cannot be published: {missing} of its shards are not in. Run them again (in Airflow: clear "
            "the failed score tasks), or start the next run of the detector, which finishes it."
        )


class SchemaOutOfDate(MillraceError):
    """The database is not at the schema this version works with."""


class RestoredElsewhere(MillraceError):
    """The database was restored into another cluster, whose transaction ids are not those of its rows."""

    def __init__(self) -> None:
        super().__init__(
            "This database was restored from another cluster, so new rows cannot be told from old ones here. "
            "Run `millrace adopt`, then `millrace doctor`; nothing was claimed."
        )


class DatabaseUnavailable(MillraceError):
    """The database cannot be reached."""


class OutOfResources(DatabaseUnavailable):
    """The database is there, but lacks the room, the time or the connections for the work."""


class RowsMoved(DatabaseUnavailable):
    """Partitions changed while a shard was read, so that it missed rows of its claim. Running it again finds them."""


class StackProblem(MillraceError):
    """The local stack cannot be started, stopped or reached."""
