-- name: traces
-- The sessions that have a line in a window.
select distinct trace_id
from millrace.logs
where
    ts >= :start and ts < :end and trace_id is not null
    and pg_visible_in_snapshot(ingest_xid, cast(:snapshot as pg_snapshot));

-- name: last_line
-- The time of the last log line before a moment.
select max(ts) from millrace.logs where ts < :before;

-- name: lock
-- One run at a time replaces the scores of a window; held until the transaction ends.
select pg_advisory_xact_lock(7241114);

-- name: forget
-- Deletes the scores of the sessions that began in a window.
delete from millrace.session_scores where started_at >= :start and started_at < :end;
