-- Grain: one detector.
create view analytics.freshness with (security_invoker = true) as
with holder as (
    select
        coalesce(a.xact_start, p.prepared) as since,
        k.pid,
        coalesce(nullif(a.application_name, ''), 'prepared transaction ' || p.gid, '(unnamed)') as name
    from pg_locks as k
    left join pg_stat_activity as a on k.pid = a.pid
    left join pg_prepared_xacts as p on k.transactionid = p.transaction
    where
        k.locktype = 'transactionid' and k.mode = 'ExclusiveLock' and k.granted
        and k.transactionid = pg_snapshot_xmin(pg_current_snapshot())::xid
        and coalesce(a.xact_start, p.prepared, '-infinity') < now() - interval '1 minute'
    limit 1
)

select
    d.name as detector,
    waiting.rows as rows_waiting,
    waiting.since as oldest_ingested_at,
    now() - waiting.since as oldest_age,
    last_claim.claimed_at as last_claimed_at,
    (
        select max(r.finished_at) from millrace.scoring_runs as r
        where r.detector_id = d.detector_id and r.state = 'done'
    ) as last_finished_at,
    open_run.run_id as open_run_id,
    open_run.rows as open_run_rows,
    holder.since as held_since,
    holder.pid as held_by_pid,
    holder.name as held_by
from millrace.detectors as d
left join lateral (
    select r.run_id, r.snapshot, r.claimed_at from millrace.scoring_runs as r
    where r.detector_id = d.detector_id and r.kind = 'new_rows'
    order by r.run_id desc
    limit 1
) as last_claim on true
left join lateral (
    select min(r.run_id) as run_id, sum(r.claimed)::bigint as rows from millrace.scoring_runs as r
    where r.detector_id = d.detector_id and r.state = 'open'
) as open_run on true
left join lateral (
    select count(*) as rows, min(l.ingested_at) as since
    from (
        -- Of these three, the one that the detector reads is looked into.
        select r.ts, r.ingested_at, r.ingest_xid, null as form from millrace.logs as r where d.source = 'logs'
        union all
        select r.ts, r.ingested_at, r.ingest_xid, null from millrace.pipeline_runs as r
        where d.source = 'pipeline_runs'
        union all
        select r.ts, r.ingested_at, r.ingest_xid, r.form from millrace.network_flows as r
        where d.source = 'network_flows'
    ) as l
    where
        l.form is not distinct from d.form
        -- Both ends, though the upper one shuts nothing out: the planner then knows the range for a narrow one.
        and l.ingest_xid >= pg_snapshot_xmin(coalesce(last_claim.snapshot, '1:1:'))
        and l.ingest_xid < pg_snapshot_xmax(pg_current_snapshot())
        and not pg_visible_in_snapshot(l.ingest_xid, coalesce(last_claim.snapshot, '1:1:'))
        and not exists (
            select from millrace.scoring_runs as w
            where
                w.detector_id = d.detector_id and w.kind = 'window' and w.run_id > coalesce(last_claim.run_id, 0)
                and l.ts <@ w.claim_window and pg_visible_in_snapshot(l.ingest_xid, w.snapshot)
        )
) as waiting on exists (
    select from millrace.model_registry as m where m.detector_id = d.detector_id and m.status = 'champion'
)
left join holder on true;

comment on view analytics.freshness is 'Grain: one detector, with how far behind its scoring is. Cheap however many rows there are.';
comment on column analytics.freshness.detector is 'Name of the detector.';
comment on column analytics.freshness.rows_waiting is 'Committed rows that no run has claimed yet; null while there is no champion to score them.';
comment on column analytics.freshness.oldest_ingested_at is 'When the first of them came in; null when none waits.';
comment on column analytics.freshness.oldest_age is 'How long ago that was.';
comment on column analytics.freshness.last_claimed_at is 'When new rows were claimed last.';
comment on column analytics.freshness.last_finished_at is 'When a run was finished last.';
comment on column analytics.freshness.open_run_id is 'Run that is claimed and not finished.';
comment on column analytics.freshness.open_run_rows is 'Rows that it has claimed.';
comment on column analytics.freshness.held_since is 'Start of the oldest writing transaction, if it is older than a minute: its rows cannot be claimed before it ends.';
comment on column analytics.freshness.held_by_pid is 'Its process in pg_stat_activity; null for a prepared transaction.';
comment on column analytics.freshness.held_by is 'Its application, or the name of the prepared transaction.';
