"""The detectors, one file each. A module here whose name has no leading underscore is a detector of that name.

Such a module holds one subclass of ``base.Detector``, and explains its method in its docstring.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from mllib.errors import UnknownDetector

if TYPE_CHECKING:
    from mllib.detectors.base import Detector


def names() -> tuple[str, ...]:
    """The names of all detectors, sorted. Imports none of them: a DAG file calls this each time it is parsed."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_") and name != "base"))


def detector(name: str) -> Detector:
    """The detector of that name. Raises UnknownDetector, which lists those there are."""
    from mllib.detectors.base import Detector

    module = importlib.import_module(f"{__name__}.{_known(name)}")
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Detector) and found.__module__ == module.__name__ and not inspect.isabstract(found):
            return found()
    raise TypeError(f"{module.__name__} holds no subclass of Detector")


def describe(name: str) -> str:
    """The docstring of the detector's module, without importing it. Raises UnknownDetector."""
    spec = importlib.util.find_spec(f"{__name__}.{_known(name)}")
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return ast.get_docstring(ast.parse(source)) or ""


def _known(name: str) -> str:
    if name not in names():
        raise UnknownDetector(name, list(names()))
    return name
