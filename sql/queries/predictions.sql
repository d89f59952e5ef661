-- name: supersede
-- Moves the predictions of a detector in a range of event time to the history. The rows are written again by the run.
with moved as (
    delete from millrace.predictions
    where detector_id = :detector_id and ts >= :start and ts < :end
    returning *
)
insert into millrace.predictions_history
(
    ts, log_id, run_id, model_version, score, raw_score, detector_id, severity, is_anomaly, explanation, superseded_by
)
select
    ts, log_id, run_id, model_version, score, raw_score, detector_id, severity, is_anomaly, explanation, :run_id
from moved;

-- name: lock_hours
-- Held until the transaction ends: a recount must see what the shard before it counted in the same hour.
select pg_advisory_xact_lock(hashtext('millrace.prediction_hours'), :detector_id);

-- name: forget_hours
-- Drops the hourly counts of a detector for the hours that a range touches; recount_hours makes them anew.
delete from millrace.prediction_hours
where
    detector_id = :detector_id
    and hour >= date_trunc('hour', cast(:start as timestamptz), 'UTC') and hour < :end;

-- name: recount_hours
-- Counts the predictions of the hours that a range touches, after some of them were superseded.
insert into millrace.prediction_hours (detector_id, hour, run_id, rows, anomalies, max_score)
select
    detector_id,
    date_trunc('hour', ts, 'UTC'),
    run_id,
    count(*),
    count(*) filter (where is_anomaly),
    max(score)
from millrace.predictions
where
    detector_id = :detector_id
    and ts >= date_trunc('hour', cast(:start as timestamptz), 'UTC')
    and ts < date_trunc('hour', cast(:end as timestamptz) + interval '1 hour' - interval '1 microsecond', 'UTC')
group by 1, 2, 3
on conflict (detector_id, hour, run_id) do update
set rows = excluded.rows, anomalies = excluded.anomalies, max_score = excluded.max_score;

-- name: add_hours
-- Adds the counts of newly written predictions to their hour.
insert into millrace.prediction_hours as h (detector_id, hour, run_id, rows, anomalies, max_score)
values (:detector_id, :hour, :run_id, :rows, :anomalies, :max_score)
on conflict (detector_id, hour, run_id) do update
set
    rows = h.rows + excluded.rows,
    anomalies = h.anomalies + excluded.anomalies,
    max_score = greatest(h.max_score, excluded.max_score);
