-- Grain: one scoring run of one detector.
create view analytics.scoring_runs with (security_invoker = true) as
select
    r.run_id,
    d.name as detector,
    r.run_key,
    r.kind,
    r.model_version,
    lower(r.claim_window) as window_start,
    upper(r.claim_window) as window_end,
    r.state,
    r.claimed,
    r.scored,
    r.anomalies,
    r.claimed_at,
    r.finished_at,
    r.plan_id
from millrace.scoring_runs as r
join millrace.detectors as d on r.detector_id = d.detector_id;

comment on view analytics.scoring_runs is 'Grain: one scoring run: what it claimed, what it has scored, with which model.';
comment on column analytics.scoring_runs.run_id is 'Number of the run.';
comment on column analytics.scoring_runs.detector is 'Name of the detector.';
comment on column analytics.scoring_runs.run_key is 'Airflow''s run id, or the command line''s own.';
comment on column analytics.scoring_runs.kind is 'new_rows: what had come in since the last claim. window: all rows between two event times.';
comment on column analytics.scoring_runs.model_version is 'Version that scored every row of it.';
comment on column analytics.scoring_runs.window_start is 'First event time of a run of kind window.';
comment on column analytics.scoring_runs.window_end is 'End of the window, itself left out.';
comment on column analytics.scoring_runs.state is 'open, or done.';
comment on column analytics.scoring_runs.claimed is 'Rows claimed.';
comment on column analytics.scoring_runs.scored is 'Rows scored.';
comment on column analytics.scoring_runs.anomalies is 'Anomalies among them.';
comment on column analytics.scoring_runs.claimed_at is 'When the claim was stored.';
comment on column analytics.scoring_runs.finished_at is 'When all was in, and the predictions became the current ones.';
comment on column analytics.scoring_runs.plan_id is 'Plan of re-scoring that it carries out, or a part of it.';
