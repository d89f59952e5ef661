-- Grain: one prediction that was current at a time, of one detector for one log line.
-- Plain SQL without options, so that PostgreSQL merges it into the query around it, filters and all.
create function analytics.predictions_as_of(moment timestamptz) returns table (
    detector text,
    log_id bigint,
    ts timestamptz,
    ingested_at timestamptz,
    service text,
    level text,
    message text,
    score real,
    is_anomaly boolean,
    severity text,
    model_version integer,
    scored_at timestamptz,
    explanation jsonb,
    class text,
    confidence real,
    raw_score real,
    host text,
    trace_id text,
    source text,
    response_time_ms real,
    status_code smallint,
    run_id integer
)
language sql stable as $$
    select
        d.name,
        p.log_id,
        p.ts,
        l.ingested_at,
        l.service,
        l.level,
        l.message,
        p.score,
        p.is_anomaly,
        (array['normal', 'low', 'medium', 'high', 'critical'])[p.severity + 1],
        p.model_version,
        r.finished_at,
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
            confidence, null::integer as superseded_by
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
    left join millrace.scoring_runs as s on p.superseded_by = s.run_id
    where
        r.finished_at <= moment
        and (p.superseded_by is null or s.finished_at is null or s.finished_at > moment)
$$;

comment on function analytics.predictions_as_of is 'What predictions_current said at a time: predictions of runs that were published by then, and not replaced by a run that was. The columns are the same. Always filter by ts: the tables beneath are partitioned by day.';
