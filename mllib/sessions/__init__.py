"""Sessions: all log lines of one trace, block, request or container, judged together by one score."""

from mllib.sessions.gathering import Sessions, gather
from mllib.sessions.model import SessionModel
from mllib.sessions.training import fit

__all__ = ["SessionModel", "Sessions", "fit", "gather"]
