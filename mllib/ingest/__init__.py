"""Files into records. One module of this package per format; a new format is a new module, found by itself.

A format's module has ``NAME``, ``DESCRIPTION``, ``sniff(lines)`` and ``parser(options)``, see ``base.Format``; where it
needs them, also ``columns(options)``, ``ALIASES``, ``STATEFUL``, ``MAX_LINE_BYTES`` and ``TABLE`` (logs unless given).
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from mllib.errors import BadInput
from mllib.ingest.base import MAX_LINE_BYTES, Format
from mllib.ingest.files import AnyPath, shown
from mllib.ingest.reader import head

SURE_ENOUGH = 0.5


@cache
def formats() -> dict[str, Format]:
    """All formats by name, aliases included."""
    found: dict[str, Format] = {}
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = importlib.import_module(info.name)
        if hasattr(module, "NAME"):
            for name in (module.NAME, *getattr(module, "ALIASES", ())):
                found[name] = Format(
                    name=name,
                    description=module.DESCRIPTION,
                    sniff=module.sniff,
                    parser=module.parser,
                    columns=getattr(module, "columns", None),
                    stateful=getattr(module, "STATEFUL", False),
                    max_line_bytes=getattr(module, "MAX_LINE_BYTES", MAX_LINE_BYTES),
                    table=getattr(module, "TABLE", "logs"),
                )
    return found


def format_named(name: str) -> Format:
    """The format of that name. Raises BadInput, which lists the formats there are."""
    if name not in formats():
        raise BadInput(f"There is no log format named {name!r}. Known: {', '.join(formats())}, or auto.")
    return formats()[name]


def detect(path: AnyPath) -> Format:
    """The format of a file, by its first lines. Raises BadInput, which names the best guess, if none fits."""
    lines = head(path)
    scores = {name: format.sniff(lines) for name, format in formats().items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] >= SURE_ENOUGH:
        return formats()[best]
    remark = "" if lines else " It has no readable line."
    if scores[best] > 0:
        remark = f" The nearest is {best} ({scores[best]:.0%} sure)."
    known = ", ".join(formats())
    raise BadInput(
        f"The format of {shown(path)} is none of those known: {known}.{remark} Say which it is with --format."
    )
