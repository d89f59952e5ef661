-- Grain: one current prediction of one detector for one CI/CD run.
create view analytics.pipeline_predictions with (security_invoker = true) as
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
    l.provider,
    l.repository,
    l.branch,
    l.workflow,
    l.language,
    l.duration_s,
    l.log_lines,
    l.log_bytes,
    l.step_count,
    l.failed_step_count,
    l.error_lines,
    l.warning_lines,
    l.retry_count,
    l.distinct_commands,
    l.dependency_installs,
    l.distinct_network_hosts,
    l.remote_script_executions,
    l.privilege_changes,
    l.secret_like_tokens,
    l.environment_dumps,
    l.image_pulls,
    l.test_failures,
    l.hosts,
    l.evidence,
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
join millrace.pipeline_runs as l on p.ts = l.ts and p.log_id = l.row_id
where
    -- As in predictions_current: what a run says and replaces counts from its publication.
    r.state = 'done'
    and p.superseded_by = any(array(select run_id from millrace.scoring_runs where state = 'open') || 0);

comment on view analytics.pipeline_predictions is 'Grain: one CI/CD run and detector, with what the detector believes of it now. Always filter by ts: the tables beneath are partitioned by day.';
comment on column analytics.pipeline_predictions.detector is 'Name of the detector.';
comment on column analytics.pipeline_predictions.row_id is 'The run.';
comment on column analytics.pipeline_predictions.ts is 'When the run started.';
comment on column analytics.pipeline_predictions.ingested_at is 'When the run came in.';
comment on column analytics.pipeline_predictions.score is 'Calibrated score, 0 to 1; from 0.6 on the run is an anomaly.';
comment on column analytics.pipeline_predictions.is_anomaly is 'Whether the detector calls it an anomaly.';
comment on column analytics.pipeline_predictions.severity is 'normal (below 0.6), low (0.7), medium (0.8), high (0.9) or critical.';
comment on column analytics.pipeline_predictions.class is 'Which class it is of, where the detector tells classes apart.';
comment on column analytics.pipeline_predictions.confidence is 'How sure the detector is of the class, 0 to 1.';
comment on column analytics.pipeline_predictions.model_version is 'Version that said so.';
comment on column analytics.pipeline_predictions.scored_at is 'When the run that said so was published.';
comment on column analytics.pipeline_predictions.explanation is 'Which features made it an anomaly, where the detector explains.';
comment on column analytics.pipeline_predictions.raw_score is 'Score as the estimator gave it.';
comment on column analytics.pipeline_predictions.provider is 'Who ran it, such as github_actions or travis.';
comment on column analytics.pipeline_predictions.repository is 'Repository that it is of.';
comment on column analytics.pipeline_predictions.branch is 'Branch or tag.';
comment on column analytics.pipeline_predictions.workflow is 'Workflow or job.';
comment on column analytics.pipeline_predictions.language is 'Main language of the repository.';
comment on column analytics.pipeline_predictions.duration_s is 'How long the run took, in seconds.';
comment on column analytics.pipeline_predictions.log_lines is 'Lines of its log.';
comment on column analytics.pipeline_predictions.log_bytes is 'Bytes of its log.';
comment on column analytics.pipeline_predictions.step_count is 'Steps of the run.';
comment on column analytics.pipeline_predictions.failed_step_count is 'Steps that failed.';
comment on column analytics.pipeline_predictions.error_lines is 'Lines of the log that tell of an error.';
comment on column analytics.pipeline_predictions.warning_lines is 'Lines of the log that warn.';
comment on column analytics.pipeline_predictions.retry_count is 'Times that something was tried again.';
comment on column analytics.pipeline_predictions.distinct_commands is 'Different commands that it ran.';
comment on column analytics.pipeline_predictions.dependency_installs is 'Installations of dependencies.';
comment on column analytics.pipeline_predictions.distinct_network_hosts is 'Different hosts that it named in addresses.';
comment on column analytics.pipeline_predictions.remote_script_executions is 'Scripts that it fetched and ran at once, such as curl piped to a shell.';
comment on column analytics.pipeline_predictions.privilege_changes is 'Uses of sudo, chmod 777, setuid and the like.';
comment on column analytics.pipeline_predictions.secret_like_tokens is 'Texts in the log that look like secrets.';
comment on column analytics.pipeline_predictions.environment_dumps is 'Times that it printed its whole environment.';
comment on column analytics.pipeline_predictions.image_pulls is 'Container images that it pulled.';
comment on column analytics.pipeline_predictions.test_failures is 'Tests that failed.';
comment on column analytics.pipeline_predictions.hosts is 'The hosts that it named, at most 100 of them.';
comment on column analytics.pipeline_predictions.evidence is 'Short excerpts of the log by kind of security issue. Untrusted: escape them wherever they are shown.';
comment on column analytics.pipeline_predictions.source is 'Where the run came from.';
comment on column analytics.pipeline_predictions.source_id is 'Its own id within its source.';
comment on column analytics.pipeline_predictions.run_id is 'Scoring run, in analytics.scoring_runs.';
