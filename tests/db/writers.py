"""Busy writers of log lines, and what they know of their own transactions."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.db.scoring_factories import insert_logs, rows, unscored
from tests.factories import START

LONGEST = 1.5
"""Seconds that the longest transactions stay open after their first insert."""


@dataclass(slots=True)
class Book:
    """Ids of the rows of the writers' transactions, by how these ended."""

    committed: list[int] = field(default_factory=list)
    rolled_back: list[int] = field(default_factory=list)
    cut_off: list[int] = field(default_factory=list)  # lost the server; a commit on its way may have arrived
    errors: list[BaseException] = field(default_factory=list)


@contextmanager
def writing(engine: Engine, writers: int, *, outlive_server: bool = False) -> Iterator[Book]:
    """Writers that insert until the block is left, then end their last transactions.

    Transactions take their id at their first insert and stay open for up to LONGEST seconds; a fifth is rolled back.
    Event times are spread over two hours before and after a midnight, the second day without a partition. With
    ``outlive_server`` they go on after a restart of the server; otherwise that is an error, raised at the end.
    """
    book, stop = Book(), threading.Event()
    own = create_engine(engine.url, pool_size=writers, pool_pre_ping=True)

    def write(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            ids: list[int] = []
            try:
                _one_transaction(own, chance, book, ids)
            except IntegrityError as error:
                # A partition of that day was made while the row was on its way to the default partition. PostgreSQL
                # says so instead of putting the row into the wrong place; the writer has to send it again.
                if "violates partition constraint" not in str(error.orig):
                    book.errors.append(error)
                    return
                book.rolled_back.extend(ids)
            except DBAPIError as error:
                if not outlive_server:
                    book.errors.append(error)
                    return
                book.cut_off.extend(ids)
                time.sleep(0.1)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield book
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        own.dispose()
    if book.errors:
        raise book.errors[0]


def _one_transaction(engine: Engine, chance: random.Random, book: Book, ids: list[int]) -> None:
    inserts = chance.randint(1, 3)
    pause = chance.choice([0, 0.02, 0.1, 0.4, LONGEST]) / inserts
    with engine.connect() as conn:
        begun = conn.begin()
        for _ in range(inserts):
            start = START + timedelta(hours=chance.choice([0, 0, 0, 15.9]), seconds=chance.uniform(0, 7_200))
            ids += insert_logs(conn, chance.randint(1, 30), start=start, step=timedelta(milliseconds=20))
            time.sleep(pause)
        if chance.random() < 0.2:
            begun.rollback()
            book.rolled_back.extend(ids)
        else:
            begun.commit()
            book.committed.extend(ids)
        ids.clear()


def check_book(engine: Engine, book: Book) -> None:
    """What was committed is there and scored, what was rolled back is neither, and nobody lost a commit."""
    there = {log_id for (log_id,) in rows(engine, "select log_id from millrace.logs")}
    scored = [log_id for (log_id,) in rows(engine, "select log_id from millrace.predictions")]
    assert unscored(engine) == []
    assert len(scored) == len(set(scored))
    assert set(scored) == there
    assert set(book.committed) <= there
    assert there - set(book.committed) <= set(book.cut_off)
    assert there.isdisjoint(book.rolled_back)
