-- Grain: one model version of one detector.
create view analytics.model_history with (security_invoker = true) as
select
    d.name as detector,
    m.version,
    m.status,
    m.algorithm,
    m.threshold,
    lower(m.train_window) as train_start,
    upper(m.train_window) as train_end,
    m.training_rows,
    last_decision.verdict,
    last_decision.candidate_f1 as f1,
    last_decision.champion_f1,
    last_decision.reason,
    m.as_of,
    m.trained_at,
    m.trained_by
from millrace.model_registry as m
join millrace.detectors as d on m.detector_id = d.detector_id
left join lateral (
    select
        p.verdict,
        p.candidate_f1,
        p.champion_f1,
        p.reason
    from millrace.promotion_decisions as p
    where p.detector_id = m.detector_id and p.candidate_version = m.version
    order by p.decision_id desc
    limit 1
) as last_decision on true;

comment on view analytics.model_history is 'Grain: one model version, with the latest verdict on it.';
comment on column analytics.model_history.detector is 'Name of the detector.';
comment on column analytics.model_history.version is 'Number of the version.';
comment on column analytics.model_history.status is 'candidate, challenger, champion, archived or refused.';
comment on column analytics.model_history.algorithm is 'Estimator.';
comment on column analytics.model_history.threshold is 'Raw score from which a line is an anomaly.';
comment on column analytics.model_history.train_start is 'First event time that it was fitted on.';
comment on column analytics.model_history.train_end is 'End of the training window, itself left out.';
comment on column analytics.model_history.training_rows is 'Rows in the training window.';
comment on column analytics.model_history.verdict is 'promote, refuse or not_enough_evidence.';
comment on column analytics.model_history.f1 is 'Its F1 on the holdout; macro-F1 for a detector with classes.';
comment on column analytics.model_history.champion_f1 is 'F1 of the champion on the same rows.';
comment on column analytics.model_history.reason is 'The verdict in a sentence.';
comment on column analytics.model_history.as_of is 'Time up to which the training looked at data.';
comment on column analytics.model_history.trained_at is 'When it was trained.';
comment on column analytics.model_history.trained_by is 'Who or which run trained it.';
