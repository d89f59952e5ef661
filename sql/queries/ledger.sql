-- name: lock
-- Held while a claim is made, so that claims of a detector follow one another. Ends with the transaction.
select pg_advisory_xact_lock(hashtext('millrace.claim'), :detector_id);

-- name: find
-- The run with this key, if it was claimed before.
select
    r.run_id, d.name as detector, r.run_key, r.kind, r.model_version, r.claim_window, r.state, r.claimed, r.scored,
    r.anomalies, r.plan_id, r.piece
from millrace.scoring_runs as r
join millrace.detectors as d using (detector_id)
where r.detector_id = :detector_id and r.run_key = :run_key;

-- name: get
-- One run by its number.
select
    r.run_id, d.name as detector, r.run_key, r.kind, r.model_version, r.claim_window, r.state, r.claimed, r.scored,
    r.anomalies, r.plan_id, r.piece
from millrace.scoring_runs as r
join millrace.detectors as d using (detector_id)
where r.run_id = :run_id;

-- name: open_run
-- The run of a detector that is claimed and not finished; there is at most one, or the pieces of one plan.
select run_id from millrace.scoring_runs where detector_id = :detector_id and state = 'open' and piece = 0;

-- name: last_snapshot
-- What the last claim of new rows had seen. Before the first: a snapshot that sees nothing.
select coalesce(
    (
        select snapshot from millrace.scoring_runs
        where detector_id = :detector_id and kind = 'new_rows'
        order by run_id desc limit 1
    ),
    '1:1:'::pg_snapshot
)::text;

-- name: current_snapshot
-- What is committed now.
select pg_current_snapshot()::text;

-- name: now
-- The time of the database's clock.
select clock_timestamp();

-- name: scored_by_windows
-- Windows that were scored since the last claim of new rows: their rows are not new any more, as far as they saw them.
select lower(w.claim_window) as window_start, upper(w.claim_window) as window_end, w.snapshot::text as snapshot
from millrace.scoring_runs as w
where
    w.detector_id = :detector_id
    and w.kind = 'window'
    and w.run_id < coalesce(:before_run, 2147483647)
    and w.run_id > coalesce(
        (
            select max(n.run_id) from millrace.scoring_runs as n
            where n.detector_id = :detector_id and n.kind = 'new_rows' and n.run_id < coalesce(:before_run, 2147483647)
        ),
        0
    )
order by w.run_id;

-- name: keep_partitions
-- Waits for rows that are moving out of the default partition, and keeps others there until the claim is stored: a plan
-- that was made before such a move and run after it would not find them. The table before its partition, as whoever drops
-- a day locks them, so that neither waits for ever.
lock table only millrace.source_rows, millrace.source_rows_default in access share mode;

-- name: insert_run
-- Stores a claim.
insert into millrace.scoring_runs
(
    detector_id, run_key, kind, model_version, previous_snapshot, snapshot, claim_window, claimed, state, finished_at,
    plan_id, piece
)
values (
    :detector_id, :run_key, :kind, :model_version,
    cast(:previous as pg_snapshot), cast(:snapshot as pg_snapshot),
    case when :kind = 'window' then tstzrange(:window_start, :window_end) end,
    :claimed,
    case when :nothing_to_do then 'done' else 'open' end,
    case when :nothing_to_do then clock_timestamp() end,
    :plan_id, :piece
)
returning run_id;

-- name: insert_shard
-- Stores one part of a claim.
insert into millrace.scoring_shards (run_id, shard, ranges, claimed)
values (:run_id, :shard, cast(:ranges as tstzmultirange), :claimed);

-- name: list_shards
-- The parts of a run, in order.
select run_id, shard, claimed, finished_at is not null as done,
    lower(ranges) as starts, upper(ranges) as ends
from millrace.scoring_shards where run_id = :run_id order by shard;

-- name: take_shard
-- Everything needed to score a shard. The row lock makes a second worker wait, and find the shard done.
select s.claimed, s.finished_at is not null as done, r.detector_id, r.model_version, r.kind,
    r.previous_snapshot::text as previous, r.snapshot::text as snapshot, r.claim_window,
    array(select array[lower(x), upper(x)] from unnest(s.ranges) as x order by lower(x)) as ranges
from millrace.scoring_shards as s
join millrace.scoring_runs as r using (run_id)
where s.run_id = :run_id and s.shard = :shard
for update of s;

-- name: finish_shard
-- Marks a shard done, in the transaction that wrote its predictions.
update millrace.scoring_shards
set scored = :scored, anomalies = :anomalies, finished_at = now()
where run_id = :run_id and shard = :shard;

-- name: lock_group
-- The runs that are published together with this one: the pieces of its plan, or it alone. Held until the end.
select r.run_id, r.detector_id, r.kind, r.state, r.claim_window
from millrace.scoring_runs as r
join millrace.scoring_runs as this on r.run_id = this.run_id or r.plan_id = this.plan_id
where this.run_id = :run_id
order by r.run_id
for no key update of r;

-- name: missing_shards
-- How many shards of these runs are not in.
select count(*) from millrace.scoring_shards where run_id = any(:run_ids) and finished_at is null;

-- name: publish
-- Closes runs whose shards are all in, with their sums, at one moment: from it on their predictions are current. The
-- moment is the last thing before the commit, and later than every earlier one of the detector, whatever the clock does.
with moment as materialized (
    select greatest(clock_timestamp(), max(finished_at) + interval '1 microsecond') as published_at
    from millrace.scoring_runs where detector_id = :detector_id
)

update millrace.scoring_runs as r
set
    state = 'done',
    finished_at = moment.published_at,
    scored = coalesce((select sum(s.scored) from millrace.scoring_shards as s where s.run_id = r.run_id), 0),
    anomalies = coalesce((select sum(s.anomalies) from millrace.scoring_shards as s where s.run_id = r.run_id), 0)
from moment
where r.run_id = any(:run_ids);

-- name: uncovered_hours
-- Hours of a range whose event times no published run over a window covers in full, or that an open one touches.
with runs as (
    select
        range_agg(claim_window) filter (where state = 'done') as done,
        range_agg(claim_window) filter (where state = 'open') as open
    from millrace.scoring_runs
    where
        detector_id = :detector_id and kind = 'window' and claim_window && tstzrange(:start, :end)
        and claimed_at >= coalesce(cast(:since as timestamptz), '-infinity')
),

hours as (
    select greatest(h, :start) as starts, least(h + interval '1 hour', :end) as ends
    from generate_series(date_trunc('hour', cast(:start as timestamptz), 'UTC'), :end, interval '1 hour') as h
    where h < :end
),

lines as (
    select date_trunc('hour', l.ts, 'UTC') as hour, count(*) as rows
    from millrace.source_rows as l where l.ts >= :start and l.ts < :end and source_has(l) group by 1
)

select
    h.starts, h.ends, coalesce(l.rows, 0) as rows, coalesce(r.open && tstzrange(h.starts, h.ends), false) as open
from hours as h
cross join runs as r
left join lines as l on l.hour = date_trunc('hour', h.starts, 'UTC')
where
    not coalesce(r.done @> tstzrange(h.starts, h.ends), false)
    or coalesce(r.open && tstzrange(h.starts, h.ends), false)
order by 1;
