"""The commands of the command line, one file per topic: call a use case, print its report, return it for ``--json``."""

from mllib.commands import evaluate, intake, models, operations, replay, report, reproduce, scoring, sessions, stack

TOPICS = (stack, intake, models, report, reproduce, replay, evaluate, scoring, sessions, operations)
"""In the order in which ``--help`` lists them. Each has ``register(command)``, which declares its commands."""
