-- name: list
-- How far behind scoring is, by detector.
select
    detector, rows_waiting, oldest_ingested_at, oldest_age, last_claimed_at, last_finished_at, open_run_id,
    open_run_rows, held_since, held_by_pid, held_by
from analytics.freshness
order by detector;

-- name: holders
-- The writing transaction that has been open longest, of any age.
select
    k.pid,
    p.gid,
    now() - coalesce(a.xact_start, p.prepared) as age,
    coalesce(nullif(a.application_name, ''), 'prepared transaction ' || p.gid, '(unnamed)') as name
from pg_locks as k
left join pg_stat_activity as a on k.pid = a.pid
left join pg_prepared_xacts as p on k.transactionid = p.transaction
where
    k.locktype = 'transactionid' and k.mode = 'ExclusiveLock' and k.granted
    and k.transactionid = pg_snapshot_xmin(pg_current_snapshot())::xid
limit 1;
