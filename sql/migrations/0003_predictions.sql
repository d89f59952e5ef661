-- The scoring ledger and the predictions that it vouches for.

create table millrace.scoring_runs (
    run_id integer generated always as identity primary key,
    detector_id smallint not null references millrace.detectors,
    run_key text not null,
    kind text not null check (kind in ('new_rows', 'window')),
    model_version integer not null,
    previous_snapshot pg_snapshot,
    snapshot pg_snapshot not null,
    claim_window tstzrange,
    state text not null default 'open' check (state in ('open', 'done')),
    claimed bigint not null,
    scored bigint not null default 0,
    anomalies bigint not null default 0,
    claimed_at timestamptz not null default now(),
    finished_at timestamptz,
    unique (detector_id, run_key),
    foreign key (detector_id, model_version) references millrace.model_registry,
    check ((kind = 'new_rows') = (previous_snapshot is not null)),
    check ((kind = 'window') = (claim_window is not null)),
    check ((state = 'done') = (finished_at is not null))
);
-- Claims of a detector are worked off one after the other, so that two never hold the same row.
create unique index scoring_runs_one_open on millrace.scoring_runs (detector_id) where state = 'open';
create index scoring_runs_claims on millrace.scoring_runs (detector_id, run_id desc);

comment on table millrace.scoring_runs is 'Grain: one scoring run of one detector: the ledger. Its claim is stored before work starts.';
comment on column millrace.scoring_runs.run_id is 'Number of the run; claims of a detector follow it.';
comment on column millrace.scoring_runs.detector_id is 'Detector.';
comment on column millrace.scoring_runs.run_key is 'Airflow''s run id, or the command line''s own. The same key finds the same claim again.';
comment on column millrace.scoring_runs.kind is 'new_rows: all rows that became visible between two snapshots. window: all rows with an event time in claim_window.';
comment on column millrace.scoring_runs.model_version is 'Version that scores every row of the run, whatever is promoted meanwhile.';
comment on column millrace.scoring_runs.previous_snapshot is 'What the last claim of new rows had seen.';
comment on column millrace.scoring_runs.snapshot is 'What this claim saw.';
comment on column millrace.scoring_runs.claim_window is 'Event times claimed by a run of kind window.';
comment on column millrace.scoring_runs.state is 'open until every shard is in, then done.';
comment on column millrace.scoring_runs.claimed is 'Rows claimed.';
comment on column millrace.scoring_runs.scored is 'Rows scored so far.';
comment on column millrace.scoring_runs.anomalies is 'Anomalies among them.';
comment on column millrace.scoring_runs.claimed_at is 'When the claim was stored.';
comment on column millrace.scoring_runs.finished_at is 'When the last shard was in.';

create table millrace.scoring_shards (
    run_id integer not null references millrace.scoring_runs,
    shard integer not null,
    ranges tstzmultirange not null,
    claimed bigint not null,
    scored bigint,
    anomalies bigint,
    finished_at timestamptz,
    primary key (run_id, shard)
);
comment on table millrace.scoring_shards is 'Grain: one part of a run. A shard and its predictions are committed together, or not at all.';
comment on column millrace.scoring_shards.run_id is 'Run.';
comment on column millrace.scoring_shards.shard is 'Number of the shard in the run, from 0.';
comment on column millrace.scoring_shards.ranges is 'Event times of the rows in the shard.';
comment on column millrace.scoring_shards.claimed is 'Rows claimed in them.';
comment on column millrace.scoring_shards.scored is 'Rows scored; null while the shard is not done.';
comment on column millrace.scoring_shards.anomalies is 'Anomalies among them.';
comment on column millrace.scoring_shards.finished_at is 'When the shard was committed.';

create table millrace.predictions (
    ts timestamptz not null,
    log_id bigint not null,
    run_id integer not null,
    model_version integer not null,
    score real not null,
    raw_score real not null,
    detector_id smallint not null,
    severity smallint not null check (severity between 0 and 4),
    is_anomaly boolean not null,
    explanation jsonb,
    primary key (detector_id, ts, log_id)
) partition by range (ts);
create index predictions_anomalies on millrace.predictions (detector_id, ts) where is_anomaly;
create table millrace.predictions_default partition of millrace.predictions default;

comment on table millrace.predictions is 'Grain: the one current prediction of a detector for a log line. Partitioned by day of ts.';
comment on column millrace.predictions.ts is 'Event time of the line.';
comment on column millrace.predictions.log_id is 'The line.';
comment on column millrace.predictions.run_id is 'Scoring run that made it.';
comment on column millrace.predictions.model_version is 'Version that made it.';
comment on column millrace.predictions.score is 'Calibrated score, 0 to 1; from 0.6 on the line is an anomaly.';
comment on column millrace.predictions.raw_score is 'Score as the estimator gave it, higher is more anomalous.';
comment on column millrace.predictions.detector_id is 'Detector.';
comment on column millrace.predictions.severity is '0 normal, 1 low, 2 medium, 3 high, 4 critical.';
comment on column millrace.predictions.is_anomaly is 'Whether the raw score reached the version''s threshold.';
comment on column millrace.predictions.explanation is 'Which features made it an anomaly; null for normal lines and for detectors that do not explain.';

create table millrace.predictions_history (
    like millrace.predictions,
    superseded_at timestamptz not null default now(),
    superseded_by integer not null
) partition by range (ts);
create index predictions_history_row on millrace.predictions_history (detector_id, ts, log_id);
create table millrace.predictions_history_default partition of millrace.predictions_history default;
comment on table millrace.predictions_history is 'Grain: one prediction that a later run replaced. The columns are those of predictions, and who replaced it when.';
comment on column millrace.predictions_history.ts is 'Event time of the line.';
comment on column millrace.predictions_history.log_id is 'The line.';
comment on column millrace.predictions_history.run_id is 'Scoring run that made it.';
comment on column millrace.predictions_history.model_version is 'Version that made it.';
comment on column millrace.predictions_history.score is 'Calibrated score, 0 to 1.';
comment on column millrace.predictions_history.raw_score is 'Score as the estimator gave it.';
comment on column millrace.predictions_history.detector_id is 'Detector.';
comment on column millrace.predictions_history.severity is '0 normal, 1 low, 2 medium, 3 high, 4 critical.';
comment on column millrace.predictions_history.is_anomaly is 'Whether it was called an anomaly.';
comment on column millrace.predictions_history.explanation is 'Why it was called an anomaly.';
comment on column millrace.predictions_history.superseded_at is 'When it was replaced.';
comment on column millrace.predictions_history.superseded_by is 'Run that replaced it.';

create table millrace.prediction_hours (
    detector_id smallint not null references millrace.detectors,
    hour timestamptz not null,
    run_id integer not null references millrace.scoring_runs,
    rows bigint not null,
    anomalies bigint not null,
    max_score real not null,
    primary key (detector_id, hour, run_id)
);
comment on table millrace.prediction_hours is 'Grain: current predictions of one run in one hour of event time. Kept in the transaction that writes them.';
comment on column millrace.prediction_hours.detector_id is 'Detector.';
comment on column millrace.prediction_hours.hour is 'Start of the hour.';
comment on column millrace.prediction_hours.run_id is 'Run that made the predictions.';
comment on column millrace.prediction_hours.rows is 'Current predictions.';
comment on column millrace.prediction_hours.anomalies is 'Anomalies among them.';
comment on column millrace.prediction_hours.max_score is 'Highest score among them.';
