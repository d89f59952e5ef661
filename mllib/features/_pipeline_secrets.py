"""What looks like a secret in a log, and excerpts of lines that show none.

These patterns run in Python too, which backtracks: so each repetition has an upper bound, and no two neighbours could
share the same characters in many ways. They find tokens of known form, what is given to a key such as ``password``,
and passwords in addresses. A secret of another form is only masked where it is a long run of letters and digits.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise

EXCERPT = 200
"""Characters of an excerpt."""
EXCERPT_BYTES = 500
"""Bytes of an excerpt as JSON, where a character can take twelve."""
MAX_LINE = 4096
"""Characters of a line that Python looks at. The patterns of polars see all of it."""
MAX_FOUND = 1024
"""Characters of what looks like a secret that Python looks at."""

MEAN_RUN = 2.0
"""Letters of one kind in a row, on average, up to which a value counts as drawn by lot: 1.6 of random ones, 3 of words
that are set together with capitals."""

SHAPED = (
    r"\b(?:AKIA|ASIA)[0-9A-Z]{12,20}\b|\bgh[opsur]_[A-Za-z0-9]{16,255}|\bgithub_pat_\w{20,255}|\bglpat-[\w-]{16,64}"
    r"|\bxox[a-z]-[\w-]{10,200}|\beyJ[\w-]{8,2000}\.[\w-]{8,2000}(?:\.[\w-]{0,2000})?|\bAIza[\w-]{30,40}"
    r"|\bnpm_[A-Za-z0-9]{20,64}|\bpypi-[\w-]{20,300}|\b[rsp]k_(?:live|test)_\w{10,100}|\bsk-[\w-]{20,200}"
    r"|\bSG\.[\w-]{12,64}\.[\w-]{12,64}|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----|\bdop_v1_[0-9a-f]{32,64}"
    r"|\bhf_[A-Za-z0-9]{24,64}|\bdckr_pat_[\w-]{16,64}|\bya29\.[\w-]{20,300}|\bhvs\.[\w-]{20,200}"
    r"|\bshpat_[0-9a-fA-F]{32}|\bAccountKey=[A-Za-z0-9+/=]{40,100}|hooks\.slack\.com/services/[\w/]{20,80}"
)
_KEY = (
    r"(?:(?:token|passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key|deploy[_-]?key"
    r"|signing[_-]?key|encryption[_-]?key|account[_-]?key|credentials?|oauth|authorization|auth[_-]?key|_pass|_pw|_pat"
    r"|_auth)[\w.-]{0,40}[\"']?\s{0,20}(?:=>|:=|[:=]|\s(?:is|was)\s)\s{0,20}"
    r"|--?(?:token|password|passwd|pass|secret|api-?key|auth)[ =]|\bbearer {1,20}(?:token\s{0,9}[:=]\s{0,9})?"
    r"|\b(?:basic|token|passw(?:or)?d) {1,20}"
    # The passwords of commands that take them under a letter.
    r"|\b(?:(?:docker|podman|buildah|skopeo|oc|az|cf) login|twine upload|mysql\w{0,9}|sshpass)\b[^|;&]{0,120}?\s-p ?"
    r"|\bcurl\b[^|;&]{0,200}?\s(?:-u|--user)[ =]?[^\s:]{1,60}:)"
)
_VALUE = r"[^\s\"',;<>(){}\[\]$%*]{6,400}"
KEYED = rf"(?i){_KEY}(?:(?:bearer|basic|token|digest)\s{{1,20}})?[\"']?{_VALUE}"
IN_ADDRESS = r"(?i)\b[a-z][a-z0-9+.-]{1,10}://[^\s/@:\"'<>]{0,100}:[^\s/@\"'<>$*\[]{6,300}@"

_PAIR = re.compile(
    rf"(?i)(?P<key>{_KEY})(?:(?:bearer|basic|token|digest)\s{{1,20}})?[\"']?(?P<value>{_VALUE})", re.ASCII
)
# One separator a time: a run of them under a second repetition could be split in as many ways as it has subsets.
_WORDS = re.compile(r"[a-z]*(?:[._/:@\\-][a-z]*)*$|[\d.,:/+-]+(?:ms|s|kb|mb|b)?$", re.IGNORECASE)
_HIDDEN = re.compile(
    r"(.)\1{3,}|x{4,}|redacted|masked|hidden|secure\]|\*\*|changeme|example|dummy|null|undefined|localhost|placeholder",
    re.IGNORECASE,
)
_FILE = re.compile(
    r"(?:\.{0,2}/|~/|[a-z]+://|[\w.]+\.(?:java|class|js|py|rb|xml|pom|jar|go|kt|scala|ts|php|c|h|html|properties)\b"
    r"|\w+\.\w+\.\w+)"
)
_VERSION = re.compile(
    r"(?:[\w.-]+:){0,3}[=<>~^!]*v?\d+(?:\.\d+)+(?:[-.+][A-Za-z]\w*)*$|(?:[\w.-]+:)+v?\d+\.\d+",
)

_MASKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(SHAPED), "[secret]"),
    (re.compile(r"([a-z][a-z0-9+.-]{1,10}://)[^\s/@\"'<>]{1,300}@", re.IGNORECASE), r"\1[secret]@"),
    (_PAIR, r"\g<key>[secret]"),
    (
        re.compile(
            r"[A-Za-z0-9+_=-]{32,}|(?=[A-Za-z0-9+/=]{0,99}\d[A-Za-z+/=]{0,99}\d)[A-Za-z0-9+/=]{40,}",
        ),
        "[secret]",
    ),
)


def secret_value(value: str) -> bool:
    """Whether the value of something called a token or a password looks like one, and not like a word or a mask."""
    value = value.rstrip(".:)!?")
    if len(value) < 6 or _HIDDEN.search(value):
        return False
    if _at_random(value):
        return True
    if _WORDS.match(value):
        return False
    if _FILE.match(value) and "@" not in value and not value.startswith(("eyJ", "SG.")):
        return False
    digits = sum(map(str.isdigit, value))
    if digits <= 1 and re.fullmatch(r"[A-Za-z_]\w*", value):
        return False  # an identifier
    if _VERSION.match(value):
        return False
    kinds = sum(any(map(test, value)) for test in (str.islower, str.isupper, str.isdigit))
    special = any(letter in "!#^&+=/~_-" for letter in value)
    return digits >= 2 and (kinds >= 2 or special) and len(set(value)) >= min(6, len(value) - 1)


def _at_random(value: str) -> bool:
    """Whether small letters, capitals and digits take turns as if drawn by lot, and not as in words."""
    if len(value) < 12 or not re.fullmatch(r"[A-Za-z0-9]+", value):
        return False
    kinds = ["a" if letter.islower() else "A" if letter.isupper() else "0" for letter in value]
    turns = sum(a != b for a, b in pairwise(kinds))
    return "a" in kinds and "A" in kinds and (turns + 1) * MEAN_RUN >= len(value)


def shaped_secret(found: str) -> str | None:
    """What SHAPED found, unless it is an example."""
    return None if re.search(r"(?i)example|x{6,}", found) else found


def keyed_secret(found: str) -> str | None:
    """The value in what KEYED found, where it looks like a secret."""
    match = _PAIR.match(found)
    return match["value"] if match and secret_value(match["value"]) else None


def address_secret(found: str) -> str | None:
    """The password in an address that IN_ADDRESS found."""
    value = found.rpartition(":")[2].rstrip("@")[:400]
    plain = len(value) >= 8 and not value.isdigit() and not _HIDDEN.search(value)
    return value if plain or secret_value(value) else None


def excerpt(line: str) -> str:
    """The first characters of a line, at most EXCERPT, with all that might be a secret masked before it is cut."""
    masked = line[:MAX_LINE].strip()
    if len(line) > MAX_LINE:
        # The last word may be the first half of a secret, which no pattern would know.
        masked = masked.rpartition(" ")[0] or f"[a word of more than {MAX_LINE:,} characters]"
    for pattern, placeholder in _MASKS:
        masked = pattern.sub(placeholder, masked)
    cut = masked if len(masked) <= EXCERPT else masked[: EXCERPT - 1] + "…"
    while len(json.dumps(cut)) > EXCERPT_BYTES:
        cut = cut[: len(cut) * 3 // 4] + "…"
    return cut
