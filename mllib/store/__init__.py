"""Everything that talks to PostgreSQL. Callers pass an engine or a connection, and get frames or dataclasses."""
