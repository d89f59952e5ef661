-- name: lock_hours
-- Held until the transaction ends. A shard that is being written then counts its rows after us, on top.
lock table millrace.prediction_hours in share row exclusive mode;

-- name: put_away_predictions
-- Moves predictions to the history whose row somebody has deleted. Days that have been dropped are left alone.
with gone as (
    delete from millrace.predictions as p
    using millrace.detectors as d
    where
        p.detector_id = d.detector_id and d.source = 'source_rows' and p.ts >= coalesce(
            (
                select max(r.dropped_before)::timestamp at time zone 'UTC' from millrace.retention as r
                where r.parent in ('source_rows', 'predictions')
            ),
            '-infinity'
        )
        and not exists (select from millrace.source_rows as l where l.ts = p.ts and l.source_row_id = p.log_id)
        and exists (select from millrace.scoring_runs as r where r.run_id = p.run_id and r.state = 'done')
    returning p.*
)
insert into millrace.predictions_history
(
    ts, log_id, run_id, model_version, score, raw_score, detector_id, severity, is_anomaly, explanation, class,
    confidence, superseded_by
)
select ts, log_id, run_id, model_version, score, raw_score, detector_id, severity, is_anomaly, explanation, class,
    confidence, run_id as superseded_by
from gone;

-- name: put_away_labels
-- Moves verdicts out of labels whose row somebody has deleted.
with gone as (
    delete from millrace.labels as b
    where
        b.subject = 'source_rows'
        and not exists (select from millrace.source_rows as l where l.ts = b.ts and l.source_row_id = b.row_id)
    returning *
)
insert into millrace.labels_put_away
(label_id, subject, ts, row_id, label, origin, labelled_by, labelled_at, note)
select label_id, subject, ts, row_id, label, origin, labelled_by, labelled_at, note
from gone;

-- name: recount_hours
-- Sets right the hourly counts that disagree with the predictions, but for days whose predictions have been dropped.
with horizon as (
    select coalesce(r.dropped_before::timestamp at time zone 'UTC', '-infinity') as moment
    from millrace.retention as r where r.parent = 'predictions'
),

counted as (
    select
        p.detector_id,
        date_trunc('hour', p.ts, 'UTC') as hour,
        p.run_id,
        count(*) as rows,
        count(*) filter (where p.is_anomaly) as anomalies,
        max(p.score) as max_score
    from (
        select p.detector_id, p.ts, p.run_id, p.is_anomaly, p.score from millrace.predictions as p
        union all
        -- What an open run has replaced counts until that run is published.
        select h.detector_id, h.ts, h.run_id, h.is_anomaly, h.score
        from millrace.predictions_history as h
        join millrace.scoring_runs as r on h.superseded_by = r.run_id
        where r.state = 'open'
    ) as p
    where p.ts >= (select moment from horizon)
    group by 1, 2, 3
),

gone as (
    delete from millrace.prediction_hours as k
    where
        k.hour >= (select moment from horizon)
        and not exists (
            select from counted as c
            where c.detector_id = k.detector_id and c.hour = k.hour and c.run_id = k.run_id
        )
)

insert into millrace.prediction_hours as k (detector_id, hour, run_id, rows, anomalies, max_score)
select detector_id, hour, run_id, rows, anomalies, max_score from counted
on conflict (detector_id, hour, run_id) do update
set rows = excluded.rows, anomalies = excluded.anomalies, max_score = excluded.max_score
where (k.rows, k.anomalies, k.max_score) is distinct from (excluded.rows, excluded.anomalies, excluded.max_score);
