-- name: labelled_of_earlier_traces
-- Labelled rows of a window that belong to a trace of which a row lies in the time before it.
with earlier as materialized (
    select distinct trace_id
    from millrace.logs
    where
        ts >= :since and ts < :start and trace_id is not null
        and pg_visible_in_snapshot(ingest_xid, cast(:snapshot as pg_snapshot))
),

later as materialized (
    select l.ts, l.log_id
    from millrace.logs as l
    join earlier using (trace_id)
    where l.ts >= :start and l.ts < :end and pg_visible_in_snapshot(l.ingest_xid, cast(:snapshot as pg_snapshot))
)

select later.log_id
from later
where
    exists (
        select from millrace.labels as v
        where v.subject = 'logs' and v.ts = later.ts and v.row_id = later.log_id and v.ts >= :start and v.ts < :end
    );
