-- Grain: one current prediction of pipeline_drift for one CI/CD run.
create view analytics.pipeline_drift with (security_invoker = true) as
with versions as (
    -- Where the drift score is 30, 50 and 70, each version has said when it was trained.
    select
        m.detector_id,
        m.version,
        (m.parameters -> 'drift_borders' ->> 0)::double precision as low,
        (m.parameters -> 'drift_borders' ->> 1)::double precision as medium,
        (m.parameters -> 'drift_borders' ->> 2)::double precision as high
    from millrace.model_registry as m
    join millrace.detectors as d on m.detector_id = d.detector_id
    where d.name = 'pipeline_drift'
),

scored as (
    select
        p.detector_id,
        p.ts,
        p.log_id,
        p.run_id,
        p.model_version,
        p.score,
        p.is_anomaly,
        p.explanation,
        case
            when p.raw_score <= v.low then 30 * p.raw_score / v.low
            when p.raw_score <= v.medium then 30 + 20 * (p.raw_score - v.low) / (v.medium - v.low)
            when p.raw_score <= v.high then 50 + 20 * (p.raw_score - v.medium) / (v.high - v.medium)
            else 70 + 30 * (p.raw_score - v.high) / (1 - v.high)
        end as drift_score
    from (
        select
            detector_id, ts, log_id, run_id, model_version, score, raw_score, is_anomaly, explanation,
            0 as superseded_by
        from millrace.predictions
        union all
        select
            detector_id, ts, log_id, run_id, model_version, score, raw_score, is_anomaly, explanation, superseded_by
        from millrace.predictions_history
    ) as p
    join versions as v on p.detector_id = v.detector_id and p.model_version = v.version
    join millrace.scoring_runs as r on p.run_id = r.run_id
    where
        -- As in predictions_current: what a run says and replaces counts from its publication.
        r.state = 'done'
        and p.superseded_by = any(array(select run_id from millrace.scoring_runs where state = 'open') || 0)
)

select
    l.row_id,
    l.ts,
    l.provider,
    l.repository,
    l.branch,
    l.workflow,
    l.language,
    s.drift_score,
    case
        when s.drift_score <= 30 then 'low'
        when s.drift_score <= 50 then 'medium'
        when s.drift_score <= 70 then 'high'
        else 'critical'
    end as risk_level,
    s.is_anomaly,
    s.score as anomaly_score,
    s.explanation -> 'issues' as issues,
    s.explanation ->> 'baseline' as baseline,
    s.explanation -> 'features' as changes,
    s.explanation ->> 'look_at' as look_at,
    l.evidence,
    l.source,
    l.source_id,
    s.model_version
from scored as s
join millrace.pipeline_runs as l on s.ts = l.ts and s.log_id = l.row_id;

comment on view analytics.pipeline_drift is 'Grain: one CI/CD run with its drift score and security issues, as pipeline_drift sees it now. Always filter by ts: the tables beneath are partitioned by day.';
comment on column analytics.pipeline_drift.row_id is 'The run.';
comment on column analytics.pipeline_drift.ts is 'When the run started.';
comment on column analytics.pipeline_drift.provider is 'Who ran it, such as github_actions or travis.';
comment on column analytics.pipeline_drift.repository is 'Repository that it is of.';
comment on column analytics.pipeline_drift.branch is 'Branch or tag.';
comment on column analytics.pipeline_drift.workflow is 'Workflow or job.';
comment on column analytics.pipeline_drift.language is 'Main language of the repository.';
comment on column analytics.pipeline_drift.drift_score is '0 to 100: 75, 90 and 97 % of the runs that the version was trained on have at most 30, 50 and 70. Does not move with the threshold.';
comment on column analytics.pipeline_drift.risk_level is 'low (drift_score up to 30), medium (50), high (70) or critical.';
comment on column analytics.pipeline_drift.is_anomaly is 'Whether it is an anomaly, by the threshold of the version.';
comment on column analytics.pipeline_drift.anomaly_score is 'Calibrated score, 0 to 1; from 0.6 on the run is an anomaly.';
comment on column analytics.pipeline_drift.issues is 'Of an anomaly with security changes: their kinds, the features that tell, why each matters and what to look at. Null for others.';
comment on column analytics.pipeline_drift.baseline is 'What the changes were compared with: repository, language or all runs.';
comment on column analytics.pipeline_drift.changes is 'Of an anomaly, the features that made it one, with value, normal range and share.';
comment on column analytics.pipeline_drift.look_at is 'Where to look first.';
comment on column analytics.pipeline_drift.evidence is 'Short excerpts of the log by kind of security issue. Untrusted: escape them wherever they are shown.';
comment on column analytics.pipeline_drift.source is 'Where the run came from.';
comment on column analytics.pipeline_drift.source_id is 'Its own id within its source.';
comment on column analytics.pipeline_drift.model_version is 'Version that said so.';
