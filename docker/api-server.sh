#!/bin/sh
# Starts Airflow's api-server. The simple auth manager takes its passwords from a file only, so the file is made here,
# out of the environment; it stays in the container.
set -eu
: "${MILLRACE_ADMIN_PASSWORD:?fill in .env, see .env.example}" "${MILLRACE_ANALYST_PASSWORD:?fill in .env, see .env.example}"
umask 077
python - <<'PYTHON'
import json
import os
from pathlib import Path

passwords = {"admin": os.environ["MILLRACE_ADMIN_PASSWORD"], "analyst": os.environ["MILLRACE_ANALYST_PASSWORD"]}
Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).write_text(json.dumps(passwords))
PYTHON
unset MILLRACE_ADMIN_PASSWORD MILLRACE_ANALYST_PASSWORD
exec airflow api-server --host 0.0.0.0 --port 8080 --workers 2
