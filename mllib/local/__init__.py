"""The local stack: an embedded PostgreSQL and Airflow's processes on one machine, without Docker and without root."""
