-- Grain: one detector and hour of event time that has predictions.
create view analytics.scoring_hourly with (security_invoker = true) as
select
    d.name as detector,
    h.hour,
    sum(h.rows)::bigint as rows,
    sum(h.anomalies)::bigint as anomalies,
    round(sum(h.anomalies) / sum(h.rows), 6) as alert_rate,
    max(h.max_score) as max_score
from millrace.prediction_hours as h
join millrace.detectors as d on h.detector_id = d.detector_id
join millrace.scoring_runs as r on h.run_id = r.run_id
where r.state = 'done'
group by 1, 2;

comment on view analytics.scoring_hourly is 'Grain: one detector and hour (UTC) of event time with predictions. Answers totals at once, without touching predictions.';
comment on column analytics.scoring_hourly.detector is 'Name of the detector.';
comment on column analytics.scoring_hourly.hour is 'Start of the hour, by event time.';
comment on column analytics.scoring_hourly.rows is 'Lines scored.';
comment on column analytics.scoring_hourly.anomalies is 'Lines called anomalies.';
comment on column analytics.scoring_hourly.alert_rate is 'anomalies / rows.';
comment on column analytics.scoring_hourly.max_score is 'Highest score of the hour.';
