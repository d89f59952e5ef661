-- Grain: one current prediction of one detector for one log line.
create view analytics.predictions_current with (security_invoker = true) as
select
    d.name as detector,
    p.log_id,
    p.ts,
    l.ingested_at,
    l.service,
    l.level,
    l.message,
    p.score,
    p.is_anomaly,
    (array['normal', 'low', 'medium', 'high', 'critical'])[p.severity + 1] as severity,
    p.model_version,
    r.finished_at as scored_at,
    p.explanation,
    p.class,
    p.confidence,
    p.raw_score,
    l.host,
    l.trace_id,
    l.source,
    l.response_time_ms,
    l.status_code,
    p.run_id
from (
    select
        detector_id, ts, log_id, run_id, model_version, score, raw_score, severity, is_anomaly, explanation, class,
        confidence, 0 as superseded_by
    from millrace.predictions
    union all
    select
        detector_id, ts, log_id, run_id, model_version, score, raw_score, severity, is_anomaly, explanation, class,
        confidence, superseded_by
    from millrace.predictions_history
) as p
join millrace.detectors as d on p.detector_id = d.detector_id
join millrace.scoring_runs as r on p.run_id = r.run_id
join millrace.logs as l on p.ts = l.ts and p.log_id = l.log_id
where
    -- A run counts from its publication, when all its shards are in. Until then its predictions are not current, and
    -- what they replaced still is. As an array, so that the history is asked by index, and only for runs that are open.
    r.state = 'done'
    and p.superseded_by = any(array(select run_id from millrace.scoring_runs where state = 'open') || 0);

comment on view analytics.predictions_current is 'Grain: one log line and detector, with what the detector believes of it now. Always filter by ts: the tables beneath are partitioned by day.';
comment on column analytics.predictions_current.detector is 'Name of the detector.';
comment on column analytics.predictions_current.log_id is 'The line.';
comment on column analytics.predictions_current.ts is 'When the event happened.';
comment on column analytics.predictions_current.ingested_at is 'When the line came in.';
comment on column analytics.predictions_current.service is 'Service that wrote the line.';
comment on column analytics.predictions_current.level is 'Level as the line has it.';
comment on column analytics.predictions_current.message is 'Text of the line.';
comment on column analytics.predictions_current.score is 'Calibrated score, 0 to 1; from 0.6 on the line is an anomaly.';
comment on column analytics.predictions_current.is_anomaly is 'Whether the detector calls it an anomaly.';
comment on column analytics.predictions_current.severity is 'normal (below 0.6), low (0.7), medium (0.8), high (0.9) or critical; for log_severity by level and anomaly.';
comment on column analytics.predictions_current.model_version is 'Version that said so.';
comment on column analytics.predictions_current.scored_at is 'When the run that said so was published.';
comment on column analytics.predictions_current.explanation is 'Why it is an anomaly: features, their normal ranges and shares. Null for other lines.';
comment on column analytics.predictions_current.class is 'Which class it is of, where the detector tells classes apart: for log_severity the level.';
comment on column analytics.predictions_current.confidence is 'How sure the detector is of the class, 0 to 1.';
comment on column analytics.predictions_current.raw_score is 'Score as the estimator gave it.';
comment on column analytics.predictions_current.host is 'Host that wrote the line.';
comment on column analytics.predictions_current.trace_id is 'Trace, block or request of the line.';
comment on column analytics.predictions_current.source is 'Where the line came from.';
comment on column analytics.predictions_current.response_time_ms is 'Duration of the request, in milliseconds.';
comment on column analytics.predictions_current.status_code is 'HTTP status of the request.';
comment on column analytics.predictions_current.run_id is 'Scoring run, in analytics.scoring_runs.';
