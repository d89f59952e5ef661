-- Detectors, their model versions, and every verdict on them.

create table millrace.detectors (
    detector_id smallint generated always as identity primary key,
    name text not null unique check (name ~ '^[a-z][a-z0-9_]*$'),
    source text not null check (source in ('logs', 'pipeline_runs', 'network_flows'))
);
comment on table millrace.detectors is 'Grain: one detector. Gives each name the small number that predictions carry.';
comment on column millrace.detectors.detector_id is 'The small number.';
comment on column millrace.detectors.name is 'Name of the detector, as the command line and the DAGs use it.';
comment on column millrace.detectors.source is 'Table whose rows it scores.';

create table millrace.model_artifacts (
    digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
    content bytea not null,
    created_at timestamptz not null default now(),
    check (encode(sha256(content), 'hex') = digest)
);
alter table millrace.model_artifacts alter column content set storage external;
comment on table millrace.model_artifacts is 'Grain: one serialised model. Workers share nothing but this.';
comment on column millrace.model_artifacts.digest is 'SHA-256 of content, in hex. Checked before a byte is read.';
comment on column millrace.model_artifacts.content is 'The model: plain arrays and a JSON header, nothing that can run.';
comment on column millrace.model_artifacts.created_at is 'When it was stored.';

create table millrace.model_registry (
    detector_id smallint not null references millrace.detectors,
    version integer not null check (version > 0),
    status text not null default 'candidate'
    check (status in ('candidate', 'challenger', 'champion', 'archived', 'refused')),
    artifact_digest text not null references millrace.model_artifacts (digest),
    algorithm text not null,
    parameters jsonb not null,
    feature_names text[] not null,
    threshold double precision not null,
    seed integer not null,
    train_window tstzrange not null,
    validation_window tstzrange,
    holdout_window tstzrange,
    training_rows bigint not null,
    label_counts jsonb not null,
    data_hash text not null,
    validation_metrics jsonb not null,
    code_revision text,
    library_versions jsonb not null,
    as_of timestamptz not null,
    trained_at timestamptz not null default now(),
    trained_by text not null,
    primary key (detector_id, version)
);
create unique index model_registry_one_champion on millrace.model_registry (detector_id) where status = 'champion';

comment on table millrace.model_registry is 'Grain: one model version of a detector. Never changed but for its status.';
comment on column millrace.model_registry.detector_id is 'Detector.';
comment on column millrace.model_registry.version is 'Number of the version, from 1 for each detector.';
comment on column millrace.model_registry.status is 'candidate: trained, not serving. challenger: scores beside the champion. champion: in production. archived: was champion. refused: the gate said no.';
comment on column millrace.model_registry.artifact_digest is 'The serialised model, in model_artifacts.';
comment on column millrace.model_registry.algorithm is 'Estimator it was fitted with.';
comment on column millrace.model_registry.parameters is 'Parameters of the estimator and of its features.';
comment on column millrace.model_registry.feature_names is 'Features, in the order of the matrix.';
comment on column millrace.model_registry.threshold is 'Raw score from which a row is an anomaly, chosen on the validation slice.';
comment on column millrace.model_registry.seed is 'Seed of everything random in the training.';
comment on column millrace.model_registry.train_window is 'Event times that it was fitted on.';
comment on column millrace.model_registry.validation_window is 'Event times that its threshold was chosen on.';
comment on column millrace.model_registry.holdout_window is 'Event times that it was judged on.';
comment on column millrace.model_registry.training_rows is 'Rows in the training window.';
comment on column millrace.model_registry.label_counts is 'Labelled rows and positives of each slice.';
comment on column millrace.model_registry.data_hash is 'SHA-256 over the ids of the rows it was fitted on.';
comment on column millrace.model_registry.validation_metrics is 'Metrics on the validation slice at the threshold.';
comment on column millrace.model_registry.code_revision is 'Git revision of the code that trained it.';
comment on column millrace.model_registry.library_versions is 'Versions of the libraries that trained it.';
comment on column millrace.model_registry.as_of is 'Time up to which the training looked at data; earlier than trained_at in a replay.';
comment on column millrace.model_registry.trained_at is 'When it was really trained.';
comment on column millrace.model_registry.trained_by is 'Who or which run trained it.';

create function millrace.keep_model_immutable() returns trigger
language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        raise exception 'model versions are never deleted; archive it instead';
    end if;
    if to_jsonb(new) - 'status' is distinct from to_jsonb(old) - 'status' then
        raise exception 'a model version is immutable but for its status; train a new version instead';
    end if;
    return new;
end
$$;
comment on function millrace.keep_model_immutable is 'Refuses every change of a model version but that of its status.';
create trigger model_registry_immutable before update or delete on millrace.model_registry
for each row execute function millrace.keep_model_immutable();

create table millrace.promotion_decisions (
    decision_id bigint generated always as identity primary key,
    detector_id smallint not null,
    candidate_version integer not null,
    champion_version integer,
    kind text not null check (kind in ('gate', 'forced', 'rollback')),
    verdict text not null check (verdict in ('promote', 'refuse', 'not_enough_evidence')),
    policy text check (policy in ('strict', 'evidence')),
    other_verdict text check (other_verdict in ('promote', 'refuse', 'not_enough_evidence')),
    candidate_f1 double precision,
    champion_f1 double precision,
    holdout_rows bigint,
    holdout_positives bigint,
    holdout_hash text,
    figures jsonb not null default '{}',
    reason text not null check (reason <> ''),
    as_of timestamptz not null,
    decided_at timestamptz not null default clock_timestamp(),
    decided_by text not null,
    foreign key (detector_id, candidate_version) references millrace.model_registry,
    foreign key (detector_id, champion_version) references millrace.model_registry
);
create index promotion_decisions_detector on millrace.promotion_decisions (detector_id, as_of);

comment on table millrace.promotion_decisions is 'Grain: one verdict on one candidate, refusals too.';
comment on column millrace.promotion_decisions.decision_id is 'Number of the decision.';
comment on column millrace.promotion_decisions.detector_id is 'Detector.';
comment on column millrace.promotion_decisions.candidate_version is 'Version that was judged.';
comment on column millrace.promotion_decisions.champion_version is 'Champion that it was judged against; null where there was none.';
comment on column millrace.promotion_decisions.kind is 'gate: by the figures. forced: by a person, who gave the reason. rollback: back to an earlier champion.';
comment on column millrace.promotion_decisions.verdict is 'promote, refuse or not_enough_evidence.';
comment on column millrace.promotion_decisions.policy is 'Policy that decided.';
comment on column millrace.promotion_decisions.other_verdict is 'What the other policy would have said.';
comment on column millrace.promotion_decisions.candidate_f1 is 'F1 of the candidate on the holdout.';
comment on column millrace.promotion_decisions.champion_f1 is 'F1 of the champion on the same rows, scored in the same run.';
comment on column millrace.promotion_decisions.holdout_rows is 'Labelled rows in the holdout.';
comment on column millrace.promotion_decisions.holdout_positives is 'Labelled anomalies in the holdout.';
comment on column millrace.promotion_decisions.holdout_hash is 'SHA-256 over ids and labels of the holdout: the same hash, the same rows.';
comment on column millrace.promotion_decisions.figures is 'All figures behind the verdict: metrics of both, gates, bootstrap, baselines.';
comment on column millrace.promotion_decisions.reason is 'The verdict in a sentence.';
comment on column millrace.promotion_decisions.as_of is 'Time that the decision counts from; earlier than decided_at in a replay.';
comment on column millrace.promotion_decisions.decided_at is 'When it was really decided.';
comment on column millrace.promotion_decisions.decided_by is 'Who or which run decided.';

create function millrace.champion_at(detector text, moment timestamptz) returns integer
language sql stable as $$
    select p.candidate_version
    from millrace.promotion_decisions p
    join millrace.detectors d using (detector_id)
    where d.name = detector and p.verdict = 'promote' and p.as_of <= moment
    order by p.as_of desc, p.decision_id desc
    limit 1
$$;
comment on function millrace.champion_at is 'Version that was champion of a detector at a time; null where there was none.';
