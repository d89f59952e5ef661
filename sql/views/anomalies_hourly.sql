-- Grain: one detector, hour of event time and service that had an anomaly.
create view analytics.anomalies_hourly with (security_invoker = true) as
select
    d.name as detector,
    date_trunc('hour', p.ts, 'UTC') as hour,
    coalesce(l.service, '(none)') as service,
    count(*) as anomalies,
    count(*) filter (where p.severity >= 3) as high_or_critical,
    max(p.score) as max_score
from (
    select detector_id, ts, log_id, run_id, score, severity, is_anomaly, 0 as superseded_by from millrace.predictions
    union all
    select detector_id, ts, log_id, run_id, score, severity, is_anomaly, superseded_by
    from millrace.predictions_history
) as p
join millrace.detectors as d on p.detector_id = d.detector_id
join millrace.scoring_runs as r on p.run_id = r.run_id
join millrace.logs as l on p.ts = l.ts and p.log_id = l.log_id
where
    p.is_anomaly
    -- As in predictions_current: what a run says and replaces counts from its publication.
    and r.state = 'done'
    and p.superseded_by = any(array(select run_id from millrace.scoring_runs where state = 'open') || 0)
group by 1, 2, 3;

comment on view analytics.anomalies_hourly is 'Grain: one detector, hour (UTC) and service with an anomaly. Hours without one are in scoring_hourly.';
comment on column analytics.anomalies_hourly.detector is 'Name of the detector.';
comment on column analytics.anomalies_hourly.hour is 'Start of the hour, by event time.';
comment on column analytics.anomalies_hourly.service is 'Service that wrote the lines; (none) where the lines name none.';
comment on column analytics.anomalies_hourly.anomalies is 'Lines called anomalies.';
comment on column analytics.anomalies_hourly.high_or_critical is 'Those of severity high or critical.';
comment on column analytics.anomalies_hourly.max_score is 'Highest score among them.';
