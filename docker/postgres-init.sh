#!/bin/sh
# Runs once, on an empty data volume: two databases, each with a role of its own that cannot open the other.
set -eu
: "${MILLRACE_DB_PASSWORD:?fill in .env, see .env.example}" "${AIRFLOW_DB_PASSWORD:?fill in .env, see .env.example}"
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set millrace_password="$MILLRACE_DB_PASSWORD" --set airflow_password="$AIRFLOW_DB_PASSWORD" <<'SQL'
-- The migrations make a role for analysts.
create role millrace login createrole password :'millrace_password';
create role airflow login password :'airflow_password';
create database millrace owner millrace;
create database airflow owner airflow;
revoke connect on database millrace, airflow from public;
grant connect on database millrace to millrace;
grant connect on database airflow to airflow;
SQL
