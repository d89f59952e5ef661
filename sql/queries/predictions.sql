-- name: supersede
-- Moves the predictions of a detector in a range of event time to the history. The rows are written again by the run.
with moved as (
    delete from millrace.predictions
    where detector_id = :detector_id and ts >= :start and ts < :end
    returning *
)
insert into millrace.predictions_history
(
    ts, log_id, run_id, model_version, score, raw_score, detector_id, severity, is_anomaly, explanation, class,
    confidence, superseded_by
)
select
    ts, log_id, run_id, model_version, score, raw_score, detector_id, severity, is_anomaly, explanation, class,
    confidence, :run_id
from moved;

-- name: forget_hours
-- Drops the counts of the other runs in whole hours that a run has replaced.
delete from millrace.prediction_hours
where detector_id = :detector_id and hour >= :start and hour < :end and run_id <> :run_id;

-- name: forget_hour
-- Drops the counts of one hour; recount_hour makes them anew.
delete from millrace.prediction_hours where detector_id = :detector_id and hour = :hour;

-- name: recount_hour
-- Counts the predictions of one hour, after a part of them was replaced.
insert into millrace.prediction_hours (detector_id, hour, run_id, rows, anomalies, max_score)
select detector_id, :hour, run_id, count(*), count(*) filter (where is_anomaly), max(score)
from millrace.predictions
where detector_id = :detector_id and ts >= :hour and ts < cast(:hour as timestamptz) + interval '1 hour'
group by detector_id, run_id;

-- name: add_hours
-- Adds the counts of newly written predictions to their hour.
insert into millrace.prediction_hours as h (detector_id, hour, run_id, rows, anomalies, max_score)
values (:detector_id, :hour, :run_id, :rows, :anomalies, :max_score)
on conflict (detector_id, hour, run_id) do update
set
    rows = h.rows + excluded.rows,
    anomalies = h.anomalies + excluded.anomalies,
    max_score = greatest(h.max_score, excluded.max_score);
