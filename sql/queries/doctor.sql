-- name: days
-- Days that have a partition of a source's table or of predictions, in order.
select distinct to_date(right(c.relname, 8), 'YYYYMMDD') as day
from pg_inherits as i
join pg_class as c on i.inhrelid = c.oid
where
    i.inhparent in (
        'millrace.logs'::regclass, 'millrace.pipeline_runs'::regclass, 'millrace.network_flows'::regclass,
        'millrace.predictions'::regclass
    )
    and c.relname ~ '_[0-9]{8}$'
order by 1;

-- name: horizons
-- The days before which rows of a table may have been dropped.
select parent, dropped_before from millrace.retention where dropped_before is not null;

-- name: sources
-- The rows that detectors of this database read.
select distinct source, form from millrace.detectors order by 1, 2;

-- name: missed
-- Rows between two event times that a detector's last finished claim has seen, and that have no prediction, by hour.
with seen as (
    select
        d.detector_id,
        d.name,
        coalesce(
            (
                select r.previous_snapshot from millrace.scoring_runs as r
                where r.detector_id = d.detector_id and r.kind = 'new_rows' and r.state = 'open'
            ),
            (
                select r.snapshot from millrace.scoring_runs as r
                where r.detector_id = d.detector_id and r.kind = 'new_rows'
                order by r.run_id desc limit 1
            )
        ) as snapshot
    from millrace.detectors as d where d.source = 'source_rows' and d.form is not distinct from 'source_form'
)

select s.name as detector, date_trunc('hour', l.ts, 'UTC') as hour, count(*) as rows
from seen as s
join millrace.source_rows as l on pg_visible_in_snapshot(l.ingest_xid, s.snapshot)
where
    l.ts >= :start and l.ts < :end and source_has(l)
    and not exists (
        select from millrace.predictions as p
        where
            p.detector_id = s.detector_id and p.ts = l.ts and p.log_id = l.source_row_id
            and p.ts >= :start and p.ts < :end
    )
group by 1, 2
order by 1, 2;

-- name: loose_predictions
-- Predictions between two event times without their row, and without their run, by detector.
select
    d.name as detector,
    count(*) filter (where l.source_row_id is null) as without_row,
    count(*) filter (where r.run_id is null) as without_run,
    min(p.ts) filter (where r.run_id is null) as first_without_run,
    max(p.ts) filter (where r.run_id is null) as last_without_run
from millrace.predictions as p
join millrace.detectors as d on p.detector_id = d.detector_id
left join millrace.source_rows as l on p.ts = l.ts and p.log_id = l.source_row_id and l.ts >= :start and l.ts < :end
left join millrace.scoring_runs as r on p.run_id = r.run_id
where
    p.ts >= :start and p.ts < :end and (l.source_row_id is null or r.run_id is null)
    and d.source = 'source_rows' and d.form is not distinct from 'source_form'
group by 1
order by 1;

-- name: wrong_hours
-- Hourly counts between two event times that disagree with the predictions, by detector.
with counted as (
    select
        p.detector_id,
        date_trunc('hour', p.ts, 'UTC') as hour,
        p.run_id,
        count(*) as rows,
        count(*) filter (where p.is_anomaly) as anomalies,
        max(p.score) as max_score
    from (
        select p.detector_id, p.ts, p.run_id, p.is_anomaly, p.score
        from millrace.predictions as p where p.ts >= :start and p.ts < :end
        union all
        -- What an open run has replaced counts until that run is published.
        select h.detector_id, h.ts, h.run_id, h.is_anomaly, h.score
        from millrace.predictions_history as h
        join millrace.scoring_runs as r on h.superseded_by = r.run_id
        where r.state = 'open' and h.ts >= :start and h.ts < :end
    ) as p
    group by 1, 2, 3
),

kept as (
    select detector_id, hour, run_id, rows, anomalies, max_score
    from millrace.prediction_hours where hour >= :start and hour < :end
)

select d.name as detector, count(distinct hour) as hours
from counted as c
full join kept as k using (detector_id, hour, run_id)
join millrace.detectors as d using (detector_id)
where (c.rows, c.anomalies, c.max_score) is distinct from (k.rows, k.anomalies, k.max_score)
group by 1
order by 1;

-- name: wrong_runs
-- Runs whose predictions are not as many as the ledger says, or with shards left out, unless a later run over a window
-- has scored all of it again, or some of it has been dropped since.
with found as (
    select run_id, sum(rows) as rows
    from (
        select run_id, count(*) as rows from millrace.predictions group by 1
        union all
        select run_id, count(*) from millrace.predictions_history group by 1
    ) as p
    group by 1
),

parts as (
    select
        s.run_id,
        range_agg(u.part) as ranges,
        min(lower(u.part)) as first_ts,
        max(upper(u.part)) as last_ts
    from millrace.scoring_shards as s cross join unnest(s.ranges) as u (part)
    group by 1
),

shards as (
    select run_id, sum(scored) as scored, count(*) filter (where finished_at is null) as unfinished
    from millrace.scoring_shards group by 1
),

runs as (
    select
        r.run_id, r.detector_id, r.state, p.ranges, p.first_ts, p.last_ts,
        coalesce(f.rows, 0) as found,
        s.unfinished,
        case r.state when 'done' then r.scored else coalesce(s.scored, 0) end as scored
    from millrace.scoring_runs as r
    join parts as p using (run_id)
    join shards as s using (run_id)
    left join found as f using (run_id)
)

select d.name as detector, r.run_id, r.scored, r.found, r.unfinished, r.first_ts, r.last_ts
from runs as r
join millrace.detectors as d using (detector_id)
where
    (r.found <> r.scored or r.state = 'done' and r.unfinished > 0)
    and r.first_ts >= coalesce(
        (
            select max(t.dropped_before)::timestamp at time zone 'UTC' from millrace.retention as t
            where t.parent in ('predictions', 'predictions_history')
        ),
        '-infinity'
    )
    and not coalesce((
        select range_agg(w.claim_window) @> r.ranges from millrace.scoring_runs as w
        where w.detector_id = r.detector_id and w.kind = 'window' and w.state = 'done' and w.run_id > r.run_id
    ), false)
order by r.run_id;

-- name: doubles
-- Rows in the default partition that lie in a day's partition as well.
select 'source_rows' as parent, count(*) as rows
from millrace.source_rows_default as x
where exists (
    select from millrace.source_rows as p
    where
        p.ts = x.ts and p.source_row_id = x.source_row_id
        and p.tableoid <> 'millrace.source_rows_default'::regclass
);

-- name: double_predictions
-- Predictions in the default partition that lie in a day's partition as well.
select 'predictions' as parent, count(*) as rows
from millrace.predictions_default as x
where exists (
    select from millrace.predictions as p
    where
        p.detector_id = x.detector_id and p.ts = x.ts and p.log_id = x.log_id
        and p.tableoid <> 'millrace.predictions_default'::regclass
);

-- name: detached
-- Tables that look like a day's partition and are none.
select c.relname as child, left(c.relname, -9) as parent, to_date(right(c.relname, 8), 'YYYYMMDD') as day
from pg_class as c
where
    c.relnamespace = 'millrace'::regnamespace and c.relkind = 'r' and not c.relispartition
    and c.relname ~ '^(logs|pipeline_runs|network_flows|predictions|predictions_history)_[0-9]{8}$'
order by 1;

-- name: strays
-- Rows that have lain in the default partition for longer than maintenance should let them.
select 'source_rows' as parent, count(*) as rows
from millrace.source_rows_default as x
where
    x.ingested_at < now() - cast(:patience as interval)
    and not millrace.is_kept('source_rows', x.ts, x.source_row_id);

-- name: stray_predictions
-- Predictions, present and past, that have lain in a default partition for longer than maintenance should let them.
select 'predictions' as parent, count(*) as rows
from millrace.predictions_default as x
join millrace.scoring_runs as r using (run_id)
where r.claimed_at < now() - cast(:patience as interval) and not millrace.is_kept('predictions', x.ts, x.log_id)
union all
select 'predictions_history', count(*)
from millrace.predictions_history_default as x
where
    x.superseded_at < now() - cast(:patience as interval)
    and not millrace.is_kept('predictions_history', x.ts, x.log_id);

-- name: age
-- How long this database has been at home in its cluster; before its first day is over, maintenance need not have run.
select now() - max(recorded_at) from millrace.database_identity;

-- name: champions
-- Champions of each detector that has versions, its newest version, and what the last decision to promote made champion.
select
    d.name as detector,
    max(m.version) as newest,
    array_remove(array_agg(m.version order by m.version) filter (where m.status = 'champion'), null) as champions,
    (
        select p.candidate_version from millrace.promotion_decisions as p
        where p.detector_id = d.detector_id and p.verdict = 'promote'
        order by p.decision_id desc limit 1
    ) as decided
from millrace.detectors as d
join millrace.model_registry as m using (detector_id)
group by d.detector_id, d.name
order by 1;

-- name: models_in_use
-- Models that score, or may be asked to: champions, challengers, and those of open runs.
select d.name as detector, m.version, m.status, m.artifact_digest as digest, a.content
from millrace.model_registry as m
join millrace.detectors as d using (detector_id)
left join millrace.model_artifacts as a on m.artifact_digest = a.digest
where
    m.status in ('champion', 'challenger')
    or exists (
        select from millrace.scoring_runs as r
        where r.detector_id = m.detector_id and r.model_version = m.version and r.state = 'open'
    )
order by 1, 2;

-- name: open_runs
-- Runs that are not finished, and since when nothing has come of them.
select
    r.run_id,
    d.name as detector,
    now() - greatest(r.claimed_at, max(s.finished_at)) as idle,
    count(s.shard) as shards,
    count(s.shard) filter (where s.finished_at is null) as unfinished
from millrace.scoring_runs as r
join millrace.detectors as d using (detector_id)
left join millrace.scoring_shards as s using (run_id)
where r.state = 'open'
group by r.run_id, d.name, r.claimed_at
order by 1;

-- name: idle_shards
-- Unfinished shards of a run that nobody has in hand: whoever scores one holds its row.
select shard from millrace.scoring_shards where run_id = :run_id and finished_at is null
for key share skip locked;

-- name: held_shards
-- Shards of open runs that one transaction has had in hand for long. A row's xmax is the transaction that locked it.
select
    r.run_id,
    d.name as detector,
    s.shard,
    a.pid,
    now() - a.xact_start as age,
    coalesce(nullif(a.application_name, ''), '(unnamed)') as name
from millrace.scoring_runs as r
join millrace.detectors as d using (detector_id)
join millrace.scoring_shards as s using (run_id)
join pg_stat_activity as a on a.backend_xid = s.xmax
where
    r.state = 'open' and s.finished_at is null and now() - a.xact_start >= :patience
    and a.pid <> pg_backend_pid() -- this one may just have looked which shards are free
order by 1, 3;

-- name: labels_without_row
-- Verdicts whose row is gone.
select count(*) from millrace.labels as b
where
    b.subject = 'source_rows'
    and not exists (select from millrace.source_rows as l where l.ts = b.ts and l.source_row_id = b.row_id);
