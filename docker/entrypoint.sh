#!/bin/sh
# Refuses to start on a secret that was left empty in .env, then becomes the command. The connection strings hold the
# passwords of the database and the queue: "user:@host" is one that was left empty.
set -eu
for name in AIRFLOW__CORE__FERNET_KEY AIRFLOW__API__SECRET_KEY AIRFLOW__API_AUTH__JWT_SECRET; do
    eval "value=\${$name-}"
    [ -n "$value" ] || { echo "millrace: $name is empty. Fill in .env, see .env.example." >&2; exit 1; }
done
for name in AIRFLOW__DATABASE__SQL_ALCHEMY_CONN AIRFLOW__CELERY__BROKER_URL AIRFLOW_CONN_MILLRACE; do
    eval "value=\${$name-}"
    case "$value" in
        "" | *:@*) echo "millrace: the password in $name is empty. Fill in .env, see .env.example." >&2; exit 1 ;;
    esac
done
exec "$@"
