"""What Python reads out of single lines of a CI/CD log: hosts, files that are fetched and run, changed rights.

Each function takes one line of bounded length and yields a bounded number of finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

MAX_WORDS = 40
"""Arguments of a command that are looked at."""
MAX_STEMS = 20
"""Changes of rights that are read out of one line."""

_LOCAL = re.compile(
    r"(?:localhost|0\.0\.0\.0|127\.\d+\.\d+\.\d+|::1|169\.254\.\d+\.\d+|(?:.*\.)?(?:local|localdomain|internal))$"
)
_NAME = re.compile(
    r"(?=.{3,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?:[a-z][a-z0-9-]{0,22}[a-z]|[0-9]{1,3})$"
)
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}$", re.ASCII)
_IPV6 = re.compile(r"[0-9a-f:]{2,45}$")
_FILE_ENDING = re.compile(
    r"jar|war|pom|xml|json|yml|yaml|sh|py|rb|js|ts|css|html|htm|txt|md|gz|tgz|zip|tar|"
    r"bz|xz|java|class|properties|gradle|log|cfg|conf|ini|lock|sql|cpp|exe|dll|so|apk|"
    r"aar|sha|asc|key|pem|crt|deb|rpm|whl|php|scala|groovy|go|rs|toml|test|spec|git|"
    r"length|out|err|tmp|bak|ear|mf|iml|png|jpg|svg"
)
_TOOL = re.compile(
    r"(?:^|[\s;&|(`/$\"'])(?:curl|wget|nc|ncat|netcat|socat|telnet|ssh|scp|sftp|ftp|rsync|ping|dig|nslookup|nmap|openssl)"
    r"(?:\.exe)?\s",
    re.IGNORECASE,
)
_SAVED_AS = re.compile(
    r"(?:-o|-O|--output|--output-document|>|-OutFile)[ =]{0,9}[\"']?(?!https?:)([\w./~-]{2,200})"
    r"|https?://([^\s\"'?;&|)]{1,500})",
    re.ASCII,
)
_RUNS = re.compile(
    r"(?:(?:ba|z|da|k)?sh|python[0-9.]*|perl|ruby|node|source|\.) +(?:-\S+ +){0,9}[\"']?([\w./~-]{2,200})"
    r"|(?:^|[\s;&|])((?:\./|/tmp/|~/)[\w./-]{1,200})",
    re.ASCII,
)
_SCRIPTS = ("sh", "py", "pl", "rb", "js", "bin", "run", "bash")
_BY_PROGRAM = re.compile(
    r"(?i)\b(sudo|doas|pkexec|gosu|su-exec|runuser|su|chmod|setcap|chown|chgrp|usermod|gpasswd|adduser|useradd|addgroup)"
    r"\s+(?=([^;&|]{0,200}))"
)
_OTHERWISE = re.compile(
    r"(?i)(/etc/sudoers|/etc/shadow|/etc/passwd|nopasswd|visudo|--privileged|--cap-add|--security-opt|docker\.sock"
    r"|pid[= ]host|userns|nsenter|setenforce|executionpolicy|localgroup|icacls|user[= ]root|setuid|setgid"
    r"|cluster-admin|write-all|: *write|-u[= ](?:root|0)|-m\s{1,9}[2-7]\d{3})"
)


def host_name(found: str) -> str | None:
    """A host as one name: lower case, without port and user. None for the machine itself and what is no host.

    Names that end in ``local``, ``internal`` or ``localdomain`` count as the machine itself, and names without a dot as
    no host.
    """
    name = found.lower().strip(".-_ ")
    if len(name) > 253 or _LOCAL.match(name):
        return None
    if ":" in name:
        return name if _IPV6.match(name) else None
    if not _NAME.match(name):
        return None
    last = name.rpartition(".")[2]
    if last[0].isdigit() and (not _ADDRESS.match(name) or any(int(part) > 255 for part in name.split("."))):
        return None
    return name


def address_host(url: str) -> str | None:
    """The host in the beginning of an address, such as ``https://user@example.org``."""
    return host_name(url.partition("://")[2].rpartition("@")[2].strip("[]"))


def bare_host(found: str) -> str | None:
    """The host in what BARE_HOST found, such as ``Connecting to example.org``, unless it is the name of a file."""
    last = re.split(r"[\s@/:=]", found[-300:].rstrip("(:"))[-1]
    if last.endswith(("#", ";")) or _FILE_ENDING.fullmatch(last.rpartition(".")[2].lower()) or found.startswith("@"):
        return None
    return host_name(last)


def argument_hosts(line: str) -> Iterator[str]:
    """Hosts that no scheme gives away: ``curl host/path``, ``ssh user@host``, ``nc host port``."""
    found = _TOOL.search(line)
    if not found:
        return
    for word in re.split(r"[\s;&|()<>\"'`]+", line[found.end() :])[:MAX_WORDS]:
        if "://" in word or word.startswith(("-", "/", ".", "$")):
            continue
        name = host_name(re.split(r"[:/,]", word.rpartition("@")[2], maxsplit=1)[0])
        if name and not _FILE_ENDING.fullmatch(name.rpartition(".")[2]):
            yield name


def saved_files(line: str) -> Iterator[str]:
    """Names of what a download saves, if it may be run: those of scripts, and those without an ending."""
    for match in islice(_SAVED_AS.finditer(line), MAX_WORDS):
        name = (match[1] or match[2].partition("/")[2]).rpartition("/")[2]
        if len(name) > 1 and ("." not in name or name.rpartition(".")[2] in _SCRIPTS):
            yield name


def run_files(line: str) -> Iterator[str]:
    """Names of files that a line runs."""
    for match in islice(_RUNS.finditer(line), MAX_WORDS):
        yield (match[1] or match[2]).rpartition("/")[2]


def privilege_stems(line: str) -> Iterator[str]:
    """What rights are changed with, without what differs from run to run: ``sudo apt-get``, ``chmod 777``."""
    for found in islice(_BY_PROGRAM.finditer(line), MAX_STEMS):
        stem = _stem(found[1].lower(), found[2].split())
        if stem:
            yield stem.encode("ascii", "replace").decode()
    for found in islice(_OTHERWISE.finditer(line), MAX_STEMS):
        yield re.sub(r"[\s=]+", " ", found[1].lower())


def _stem(program: str, arguments: list[str]) -> str | None:
    words = [word for word in arguments if not word.startswith("-") and "=" not in word]
    first = words[0] if words else ""
    if program in ("sudo", "doas", "pkexec", "gosu", "su-exec", "runuser"):
        as_shell = not words and any(re.match(r"-[sinSu]|--(?:login|shell|user)", word) for word in arguments)
        what = "-s" if as_shell else first.rpartition("/")[2].strip("\"'")[:40].lower()
        return f"{program} {what}".rstrip()
    if program == "chmod":
        return f"chmod {'other' if re.fullmatch(r'[ug]*[+][x]|[0-7]?[0-7][0-7][0145]', first) else first[:12]}"
    if program == "chown":
        return f"chown {first.partition(':')[0][:20]}"
    if program == "su":
        return "su" if arguments and (arguments[0].startswith("-") or arguments[0] == "root") else None
    return program
