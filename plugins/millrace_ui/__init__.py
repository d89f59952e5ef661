"""Millrace's pages on Airflow's api-server. They only read."""
