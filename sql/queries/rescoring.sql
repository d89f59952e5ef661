-- name: last_run
-- The highest run of a detector that is published.
select coalesce(max(run_id), 0) from millrace.scoring_runs where detector_id = :detector_id and state = 'done';

-- name: champions_then
-- The stretches of a range between promotions, each with whoever was champion in it, if anybody.
with borders as (
    select cast(:start as timestamptz) as starts
    union
    select as_of from millrace.promotion_decisions
    where detector_id = :detector_id and verdict = 'promote' and as_of > :start and as_of < :end
)

select
    starts,
    lead(starts, 1, cast(:end as timestamptz)) over (order by starts) as ends,
    millrace.champion_at(:detector, starts) as version
from borders
order by starts;

-- name: verdicts
-- What the detector believes of the rows in a range, as predictions_current has it.
select p.log_id, p.is_anomaly
from (
    select detector_id, ts, log_id, run_id, is_anomaly, 0 as superseded_by from millrace.predictions
    union all
    select detector_id, ts, log_id, run_id, is_anomaly, superseded_by from millrace.predictions_history
) as p
join millrace.scoring_runs as r on p.run_id = r.run_id
where
    p.detector_id = :detector_id and p.ts >= :start and p.ts < :end and r.state = 'done'
    and p.superseded_by = any(array(select run_id from millrace.scoring_runs where state = 'open') || 0);

-- name: insert_plan
-- Stores a plan.
insert into millrace.rescore_plans
(detector_id, plan_window, model_choice, snapshot, last_run, rows, left_out, hours, reason, run_key, made_by)
values (
    :detector_id, tstzrange(:start, :end), :model_choice, cast(:snapshot as pg_snapshot), :last_run, :rows, :left_out,
    cast(:hours as jsonb), :reason, :run_key, :made_by
)
returning plan_id;

-- name: insert_piece
-- Stores a piece of a plan.
insert into millrace.rescore_pieces
(
    plan_id, piece, detector_id, piece_window, model_version, rows, compared, to_anomaly, to_normal, first_verdicts
)
values (
    :plan_id, :piece, :detector_id, tstzrange(:start, :end), :model_version, :rows, :compared, :to_anomaly, :to_normal,
    :first_verdicts
);

-- name: get_plan
-- One plan.
select
    p.plan_id, d.name as detector, p.detector_id, lower(p.plan_window) as starts, upper(p.plan_window) as ends,
    p.model_choice, p.snapshot::text as snapshot, p.last_run, p.rows, p.left_out, p.hours, p.reason, p.made_by,
    p.made_at
from millrace.rescore_plans as p
join millrace.detectors as d using (detector_id)
where p.plan_id = :plan_id;

-- name: list_pieces
-- The pieces of a plan, in order.
select
    lower(piece_window) as starts, upper(piece_window) as ends, model_version, rows, compared, to_anomaly, to_normal,
    first_verdicts
from millrace.rescore_pieces where plan_id = :plan_id
order by piece;

-- name: claimed_plan
-- The plan that a run made and has claimed.
select p.plan_id
from millrace.rescore_plans as p
join millrace.scoring_runs as r on p.plan_id = r.plan_id
where p.run_key = :run_key
limit 1;

-- name: runs
-- The runs that carry a plan out, in the order of its pieces.
select run_id from millrace.scoring_runs where plan_id = :plan_id order by piece;

-- name: later_run
-- A run over a window that came after a plan was made and scored some of its range again.
select run_id from millrace.scoring_runs
where
    detector_id = :detector_id and kind = 'window' and run_id > :last_run and claimed > 0
    and claim_window && tstzrange(:start, :end)
order by run_id
limit 1;
