"""What lines of CI/CD logs are recognised by.

All patterns here are for polars, whose engine takes time linear in the text, whatever the pattern: see ``linear``. They
find the wording of build tools of the years 2014 to 2024, in English; a tool that words it otherwise is not seen.
"""

from __future__ import annotations

import re
from functools import cache


@cache
def linear(pattern: str) -> str:
    """A pattern that Python understands too, for polars: ASCII classes, and no upper bounds on repetition.

    Only Python's engine needs such bounds, against backtracking; the other would unroll them into a huge automaton.
    """
    low = {"0": "*", "1": "+"}
    unbounded = re.sub(r"\{(\d+),\d{2,}\}", lambda found: low.get(found[1], f"{{{found[1]},}}"), pattern)
    ascii_only = unbounded.replace(r"[\w", "[0-9A-Za-z_").replace(r"\w", "[0-9A-Za-z_]").replace(r"\d", "[0-9]")
    return ascii_only.replace(r"\b", r"(?-u:\b)")


def _any(*patterns: str) -> str:
    return "(?i)(?:" + "|".join(patterns) + ")"


# --- the form of a log

ANSI = (
    r"\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
STAMP = (
    r"^(?:[^\t\n]{0,200}\t[^\t\n]{0,200}\t)?\x{feff}?"
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d))(?: |$)"
)
"""A time before a line, as GitHub writes it, with its job and step before it where its command line gave the log."""
TIMED = r"start=(\d{18,20}),finish=(\d{18,20})"
CLONED = (
    r"(?:^\s*\$ cd |git clone [^\n]{0,200}github\.com[/:]"
    r"|/home/(?:travis|runner|github)/(?:build|work)/(?:failed/|passed/)?|/_work/|Syncing repository: )"
    r"([\w-][\w.-]{0,99}/[\w-][\w.-]{0,99})"
)
COMMAND = (
    r"^\s*(?:\[[^\]\s]{1,60}\]\s*)?(?:[\w.@~:/-]{0,80}[$%] +|\++ +|##\[command\] *|\[command\] *|##\[group\] *Run +"
    r"|Run +(?:[a-z./$]|[A-Z_]+=)|Step \d+/\d+ : RUN +|#\d+ \[[^\]]{1,60}\] RUN +)"
)
"""A prompt, a trace of the shell, a command of GitHub or of a container's build."""

# Where a command may begin: at the start of a line, after a prompt, or after another command.
_AT = (
    r"(?:^\s*|[;&|(`{]\s*|[$%+>] +|##\[(?:command|group)\] *(?:Run +)?|\[command\]\S*/|\bRun +|\bRUN +"
    r"|\b(?:then|do|else|exec|eval|time|nohup|env|xargs|command|travis_retry|travis_wait)\s+"
    r"|\bsh -[a-z]*c\s+[\"']?|\bsudo +(?:-\S+ +)*|[\"'])"
)
_AT_PROMPT = (
    r"(?:[$%+>] +|##\[(?:command|group)\] *(?:Run +)?|\[command\]\S*/|\bRun +|(?:;|&&|\|\|) *|\bsh -[a-z]*c\s+[\"']?)"
)
_SUDO = r"(?:sudo +(?:-\S+ +)*(?:\w+=\S+ +)*)?"

# --- what was run

_FETCHER = (
    r"(?:curl|wget|aria2c|lwp-download|http(?:ie)?|Invoke-WebRequest|Invoke-RestMethod|iwr|irm|fetch|axel)(?:\.exe)?"
)
_SHELL = (
    r"(?:/\S*/)?(?:ba|z|da|k|fi|c|a)?sh"
    r"|(?:/\S*/)?(?:python|perl|ruby|node|php|pwsh|powershell|iex|Invoke-Expression)[0-9.]*"
)
_READS_NET = r"(?:urlopen|urlretrieve|requests\.get|open-uri|LWP::|https?\.get)"
REMOTE_SCRIPT = _any(
    rf"\b{_FETCHER}\b[^|]{{1,2000}}\|(?:[^|]{{0,500}}\|){{0,3}}\s*{_SUDO}"
    rf"(?:env +|exec +|\w+=\S+ +|xargs +(?:-\S+ +)*)*(?:{_SHELL})(?:\s|$|[;&)\"'`])",
    rf"(?:{_SHELL}|\bsource|\beval|(?:^|\s)\.)\s[^|;&]{{0,200}}?(?:<\s*\(|\$\(|`)\s*(?:sudo +)?{_FETCHER}\b",
    rf"\bbase64 +(?:-d|-D|--decode)\b[^|]{{0,500}}\|\s*(?:sudo +(?:-\S+ +)*)?(?:{_SHELL})(?:\s|$|[;&)\"'`])",
    rf"\b{_FETCHER}\b[^;&|]{{1,2000}}(?:;|&&)[^|]{{0,200}}?"
    rf"(?:\bchmod +\S*x\S* +\S+|(?:{_SHELL}|\bsource) +(?:-\S+ +)*[\w./~$-]+)",
    r"\.DownloadString\(|\bDownloadFile\([^|]{0,500}Start-Process|\bmshta +https?:|\brundll32[^|]{0,100}https?:",
    r"(?:/dev/tcp/[\w.-]+/\d+)",
    rf"(?:{_SHELL}) +-[ec] [^|]{{0,300}}{_READS_NET}[^|]{{0,1000}}(?:exec|eval|system)",
    rf"(?:{_SHELL}) +-[ec] [^|]{{0,200}}(?:exec|eval|system)[^|]{{0,1000}}{_READS_NET}",
    r"\b(?:deno +run|npx|bash|sh) +(?:-\S+ +)*https?://",
    rf"\b{_FETCHER}\b[^;&|]{{1,2000}}\|\s*(?:tar|bsdtar|unzip|gunzip|cpio)\b[^;&|]{{0,200}}(?:;|&&)\s*"
    rf"(?:cd +[^;&|]{{1,200}}(?:;|&&)\s*)?{_SUDO}(?:(?:{_SHELL}) +)?\./\S",
)
"""A script out of the network that is run in the same line."""
SAVED = rf"(?i)\b{_FETCHER}\b"
RUN_FILE = rf"(?i){_AT}(?:sudo +(?:-\S+ +)*)?(?:(?:{_SHELL}|source|\.) +(?:-\S+ +)*|\./|/tmp/)\S"

PRIVILEGE = _any(
    rf"{_AT}(?:sudo|doas|pkexec|gosu|su-exec|runuser)\s+\S",
    rf"{_AT}su\s+(?:-|root\b|\w+ -c)",
    r"\bchmod\s+(?:-\S+\s+)*(?:[0-7]?[0-7]?[0-7][2367]\b|[2-7][0-7]{3}\b|[0-7]?777\b"
    r"|[augo,]*[ao][augo]*[+=][rx]*w|[ugo,]*\+[rwx]*s)",
    r"\bsetcap\s|\bsetuid\s*\(|\bset(?:uid|gid) bit|\bchown\s+(?:-\S+\s+)*(?:root|0)\b",
    r"\bchgrp\s+(?:-\S+\s+)*(?:root|wheel|sudo|0)\b|\binstall\s+[^;|]{0,60}-m\s*[2-7][0-7]{3}\b",
    r"\b(?:usermod|gpasswd|adduser|useradd|addgroup)\s[^;|]{0,100}\b(?:sudo|docker|wheel|root|admin|adm)\b",
    r"\buseradd\s[^;|]{0,100}-u\s*0\b",
    r"/etc/(?:sudoers|shadow|passwd\b)|\bNOPASSWD\b|\bvisudo\b",
    r"--privileged\b|--cap-add\b|--security-opt\b|/var/run/docker\.sock|--pid[= ]host\b|--userns[= ]host\b",
    r"\bnsenter\s|\bsetenforce\s+0|\bSet-ExecutionPolicy\s|\bnet\s+localgroup\s+administrators\b|\bicacls\s",
    r"--user[= ]root\b|(?:^|\s)-u[= ](?:root|0)\b|\bUSER root\b|\bcluster-admin\b",
    r"^\s*(?:contents|packages|id-token|actions|deployments|security-events)\s*:\s*write\s*$|\bwrite-all\b",
)
ENVIRONMENT_DUMP = _any(
    rf"{_AT_PROMPT}(?:printenv|env|set|export -p|declare -[xp]+|typeset -x)\s*(?:$|[|>;&)])",
    rf"{_AT}(?:printenv|env)\s+(?:-0|--null)",
    r"/proc/(?:self|\d+|\$\$|1)/environ|\b(?:Get-ChildItem|gci|dir|ls)\s+env:",
    r"\bos\.environ\)|print\([^)]{0,20}\bos\.environ|console\.log\(\s*process\.env\s*\)",
    r"JSON\.stringify\(\s*process\.env|\btoJson\(\s*(?:secrets|env)\s*\)|\bdump of environment",
    r"^\s*environment variables:?\s*$",
)
DECLARED = r"^\s*(?:declare -x |export )?[A-Z][A-Z0-9_]{2,60}=\S"
IMAGE_PULL = _any(
    r"\bdocker(?:-compose| compose)? +(?:-\S+ +)*pull\b|\bpodman +pull\b|\bcrictl +pull\b|\bskopeo +copy\b",
    r": Pulling from \S|\bPulling (?:docker )?image\b|^Status: Downloaded newer image",
)
IMAGE_PULL_COMMAND = r"(?i)\b(?:docker(?:-compose| compose)?|podman|crictl) +(?:-\S+ +)*pull\b"

# --- how it went

ERROR = (
    r"(?i)(?:\b(?:error|fatal|exception|traceback|panic|fail(?:ed|ure)?|cannot find|undefined reference|unable to"
    r"|not found)\b|##\[error\]|\b\w+(?:Error|Exception)\b)"
)
NO_ERROR = r"(?i)(?:\b(?:0|no) (?:errors?|fail\w*)|\b(?:errors?|fail\w*|failures)\s*[:=]\s*0\b)"

COUNTED = {
    "failed_step_count": (
        r"(?:##\[error\].{0,200}(?:exit code [1-9]|failed|timed out)|Process completed with exit code [1-9]"
        r"|^The command .{1,2000} (?:failed|exited with [1-9])|^Error: .{0,200}exit code [1-9])"
    ),
    "warning_lines": r"(?i)(?:\bwarn(?:ing)?s?\b|\bdeprecat\w+|##\[warning\])",
    "retry_count": (
        r"(?i)(?:\btravis_retry\b|\bretry(?:ing)?\b|\bretries\b|\bfailed \d+ times"
        r"|\battempt (?:#|no\.? ?)?(?:[2-9]|\d\d)\b|\btrying again\b)"
    ),
    "dependency_installs": _any(
        rf"{_AT}{_SUDO}(?:apt(?:-get)?|yum|dnf|apk|brew|gem|pip[0-9.]*|pipx|conda|cargo|choco|zypper|pacman|bundle|npm"
        r"|yarn|pnpm|composer|bower|poetry|cabal|stack|opam|nuget|dotnet|go|cpanm?|luarocks|helm|easy_install"
        r"|python\S* -m pip)\s+(?:-\S+\s+)*(?:install|add|ci|get|restore|update|-S\w*)\b",
        r"^(?:Setting up \S+ \(|Successfully installed |Collecting \S|Installing \S+ \(?v?\d|Get:\d+ )",
        r"\bDownloaded:? (?:from \S+: )?\S+\.(?:jar|war|aar|whl|gem|tgz|tar\.gz|zip|nupkg|crate)\b",
        r"^Download https?://\S+\.(?:jar|aar)|\badded \d+ packages\b",
    ),
    "test_failures": (
        r"(?:(?:Failures|Errors): *[1-9]\d*|\b[1-9]\d* (?:failed|failures?|failing)\b|^\s*--- FAIL|^FAILED?\b"
        r"|\bFAILED$|<<< (?:FAILURE|ERROR)!|^not ok \d|^\s*✕|^FAIL:? )"
    ),
}
"""Features that are the number of lines in which a pattern occurs."""

# --- whom it spoke to

NETWORK_TOOL = (
    rf"(?i){_AT}(?:\S*/)?(?:{_FETCHER}|nc|ncat|netcat|socat|telnet|ssh|scp|sftp|ftp|rsync|ping|dig|nslookup"
    r"|git +(?:clone|fetch|pull|push|remote|submodule)|pip[0-9.]*|npm|yarn|gem|go|docker|podman|openssl|aws|gsutil"
    r"|svn|hg|nmap)(?:\.exe)?\s"
)
URL = (
    r"(?i)\b(?:https?|ftps?|sftp|ssh|git|wss?|tcp|udp|rsync|ldaps?|tls|svn|socks5h?)(?:\+[a-z]{2,5})?://"
    r"(?:[^\s/@\"'<>]{0,200}@)?(?:[a-z0-9_][a-z0-9._-]{0,252}|\[[0-9a-f:]{2,45}\])"
)
BARE_HOST = (
    r"(?i)(?:\b(?:connect(?:ing|ed)?|connection) to|\bresolving|\bresolved|\bPING|\blooking up|\btrying|\bremote host"
    r"|\bdev/tcp/|git@|\bhost[:=]|@|\b(?:docker|podman) +(?:pull|push|login|run) +|\brefers to (?:a )?repository \[)"
    r"\s*[\w.-]*[a-z0-9-]+\.[a-z0-9.-]*[a-z0-9][#(:;]?"
)
NO_CONTACT = r"^\$? *(?:export|echo|printf) "
PACKAGE = _any(
    r"\b(?:download(?:ing|ed)?|fetch(?:ing|ed)?|upload(?:ing|ed)?)\b.{0,300}"
    r"\.(?:jar|pom|war|aar|whl|gem|tgz|tar\.gz|zip|nupkg|crate|xml|sha1|md5|sha256|deb|module|apk|ivy)\b",
    r"^(?:get|hit|ign|err|reading|fetch)[: ]\S*\s*(?:\d+ )?https?://",
    r"\b(?:transfer|find|resolve|locate) (?:artifact|metadata)\b|from/to|\btried\b|\brepositor(?:y|ies)\b",
    r"\bmaven-metadata\b",
)
TRANSFER = (
    r"(?:(?i:\b(?:download|fetch|resolv|connect|pull|clon|upload|push|send|sent|post|publish|retriev|request|transfer"
    r"|collect|redirect|gett|reach|beacon|proxy|tunnel|forward|report|quer|call|contact|exfiltrat)(?:ing|ed|s)?\b"
    r"|^(?:get|hit|ign|err)[: ]|\blooking in index|\blocation: |\bremote (?:host|url)"
    r"|\bopen(?:ed|ing) (?:tcp |a )?connection|^--\d{4}-|\bdns\b|\blookup\b)"
    r"|\b(?:GET|POST|PUT|HEAD|DELETE|PATCH|CONNECT)\b)"
)
PAGE_TO_READ = r"(?i)\b(?:warning|see|javadoc|documentation|visit|information|please|stack ?overflow|help|docs)\b"
"""Words of lines that name a page to read rather than a host that was spoken to."""
