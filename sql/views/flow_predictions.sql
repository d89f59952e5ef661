-- Grain: one current prediction of one detector for one network flow.
create view analytics.flow_predictions with (security_invoker = true) as
select
    d.name as detector,
    p.log_id as row_id,
    p.ts,
    l.ingested_at,
    p.score,
    p.is_anomaly,
    (array['normal', 'low', 'medium', 'high', 'critical'])[p.severity + 1] as severity,
    p.class,
    p.confidence,
    p.model_version,
    r.finished_at as scored_at,
    p.explanation,
    p.raw_score,
    l.form,
    l.src_ip,
    l.dst_ip,
    l.dst_port,
    l.protocol,
    l.features,
    l.source,
    l.source_id,
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
join millrace.network_flows as l on p.ts = l.ts and p.log_id = l.row_id
where
    -- As in predictions_current: what a run says and replaces counts from its publication.
    r.state = 'done'
    and p.superseded_by = any(array(select run_id from millrace.scoring_runs where state = 'open') || 0);

comment on view analytics.flow_predictions is 'Grain: one network flow and detector, with what the detector believes of it now. Always filter by ts: the tables beneath are partitioned by day.';
comment on column analytics.flow_predictions.detector is 'Name of the detector.';
comment on column analytics.flow_predictions.row_id is 'The flow.';
comment on column analytics.flow_predictions.ts is 'When the flow started, or, where that is not known, when it came in.';
comment on column analytics.flow_predictions.ingested_at is 'When the flow came in.';
comment on column analytics.flow_predictions.score is 'Calibrated score, 0 to 1; from 0.6 on the flow is a threat.';
comment on column analytics.flow_predictions.is_anomaly is 'Whether the detector calls it a threat.';
comment on column analytics.flow_predictions.severity is 'normal (below 0.6), low (0.7), medium (0.8), high (0.9) or critical.';
comment on column analytics.flow_predictions.class is 'Which class it is of, where the detector tells classes apart.';
comment on column analytics.flow_predictions.confidence is 'How sure the detector is of the class, 0 to 1.';
comment on column analytics.flow_predictions.model_version is 'Version that said so.';
comment on column analytics.flow_predictions.scored_at is 'When the run that said so was published.';
comment on column analytics.flow_predictions.explanation is 'Which features made it a threat, where the detector explains.';
comment on column analytics.flow_predictions.raw_score is 'Score as the estimator gave it.';
comment on column analytics.flow_predictions.form is 'What the features are: nsl_kdd, a connection as in the files of NSL-KDD, or cicflowmeter, a flow as CICFlowMeter measures it.';
comment on column analytics.flow_predictions.src_ip is 'Address that it came from.';
comment on column analytics.flow_predictions.dst_ip is 'Address that it went to.';
comment on column analytics.flow_predictions.dst_port is 'Port that it went to.';
comment on column analytics.flow_predictions.protocol is 'Protocol: tcp, udp, icmp, or its number.';
comment on column analytics.flow_predictions.features is 'Values by the column names of the form.';
comment on column analytics.flow_predictions.source is 'Where the flow came from.';
comment on column analytics.flow_predictions.source_id is 'Its own id within its source.';
comment on column analytics.flow_predictions.run_id is 'Scoring run, in analytics.scoring_runs.';
