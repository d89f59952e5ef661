-- name: state
-- The cluster that the database is in, the one it was last known in, and whether ids here are behind the last claim's.
select
    millrace.system_identifier() as here,
    (select i.system_identifier from millrace.database_identity as i order by i.epoch desc limit 1) as recorded,
    coalesce((
        select pg_snapshot_xmax(r.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
        from millrace.scoring_runs as r
        order by r.run_id desc limit 1
    ), false) as behind;

-- name: lock
-- Held while a database is adopted, by one session at a time.
select pg_advisory_lock(hashtext('millrace.adopt'));

-- name: unlock
-- Lets the next one adopt.
select pg_advisory_unlock(hashtext('millrace.adopt'));

-- name: counts
-- The next transaction id here, and the first that no row, claim, plan or model knows.
select
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as here,
    greatest(
        (select max(pg_snapshot_xmax(r.snapshot)::text::bigint) from millrace.scoring_runs as r),
        (select max(pg_snapshot_xmax(p.snapshot)::text::bigint) from millrace.rescore_plans as p),
        (select max(pg_snapshot_xmax(m.snapshot)::text::bigint) from millrace.model_registry as m),
        (select max(l.ingest_xid)::text::bigint + 1 from millrace.logs as l),
        (select max(l.ingest_xid)::text::bigint + 1 from millrace.pipeline_runs as l),
        (select max(l.ingest_xid)::text::bigint + 1 from millrace.network_flows as l),
        0
    ) as target;

-- name: record
-- Notes that the database is at home in this cluster from now on.
insert into millrace.database_identity (system_identifier, advanced)
values (millrace.system_identifier(), :advanced);
