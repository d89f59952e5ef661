-- Plans of re-scoring: a range of event time in pieces, each with its model, shown before anything is scored again.

create table millrace.rescore_plans (
    plan_id integer generated always as identity primary key,
    detector_id smallint not null references millrace.detectors,
    plan_window tstzrange not null check (not isempty(plan_window)),
    model_choice text not null check (model_choice in ('champion', 'as-of-then', 'version')),
    snapshot pg_snapshot not null,
    last_run integer not null,
    rows bigint not null,
    left_out bigint not null,
    hours jsonb not null,
    reason text check (reason <> ''),
    run_key text not null,
    made_by text not null,
    made_at timestamptz not null default clock_timestamp()
);
create index rescore_plans_key on millrace.rescore_plans (run_key);

comment on table millrace.rescore_plans is 'Grain: one plan to score a range of event time again. Running it does exactly what it says, or refuses.';
comment on column millrace.rescore_plans.plan_id is 'Number of the plan.';
comment on column millrace.rescore_plans.detector_id is 'Detector.';
comment on column millrace.rescore_plans.plan_window is 'Event times that were asked for.';
comment on column millrace.rescore_plans.model_choice is 'champion: the one when the plan was made. as-of-then: whoever was champion at the event''s time. version: a named one.';
comment on column millrace.rescore_plans.snapshot is 'What was committed when the plan was made. A row that has come since makes the plan void.';
comment on column millrace.rescore_plans.last_run is 'Highest scoring run when the plan was made. A later run over a window in its range makes the plan void.';
comment on column millrace.rescore_plans.rows is 'Rows to be scored again.';
comment on column millrace.rescore_plans.left_out is 'Rows of the range that are left as they are, because there was no champion at their time.';
comment on column millrace.rescore_plans.hours is 'Rows to be scored again by hour of event time.';
comment on column millrace.rescore_plans.reason is 'Why, in the words of whoever asked.';
comment on column millrace.rescore_plans.run_key is 'Airflow''s run id, or the command line''s own.';
comment on column millrace.rescore_plans.made_by is 'Who made the plan.';
comment on column millrace.rescore_plans.made_at is 'When it was made.';

create table millrace.rescore_pieces (
    plan_id integer not null references millrace.rescore_plans,
    piece smallint not null,
    detector_id smallint not null,
    piece_window tstzrange not null check (not isempty(piece_window)),
    model_version integer not null,
    rows bigint not null,
    compared bigint not null,
    to_anomaly bigint not null,
    to_normal bigint not null,
    first_verdicts bigint not null,
    primary key (plan_id, piece),
    foreign key (detector_id, model_version) references millrace.model_registry
);
comment on table millrace.rescore_pieces is 'Grain: one part of a plan that one model version scores. Each becomes one scoring run.';
comment on column millrace.rescore_pieces.plan_id is 'Plan.';
comment on column millrace.rescore_pieces.piece is 'Number of the piece in the plan, from 0, in order of event time.';
comment on column millrace.rescore_pieces.detector_id is 'Detector.';
comment on column millrace.rescore_pieces.piece_window is 'Event times of the piece.';
comment on column millrace.rescore_pieces.model_version is 'Version that scores it.';
comment on column millrace.rescore_pieces.rows is 'Rows in it.';
comment on column millrace.rescore_pieces.compared is 'Rows that were scored for the plan, to compare the verdicts; fewer than rows in a large plan.';
comment on column millrace.rescore_pieces.to_anomaly is 'Compared rows that are normal now and would be anomalies.';
comment on column millrace.rescore_pieces.to_normal is 'Compared rows that are anomalies now and would be normal.';
comment on column millrace.rescore_pieces.first_verdicts is 'Compared rows that have no prediction yet.';

-- The runs of a plan are claimed together and published together; every other run is the piece 0 of nothing.
alter table millrace.scoring_runs
add column plan_id integer,
add column piece smallint not null default 0,
add check (piece = 0 or plan_id is not null),
add foreign key (plan_id, piece) references millrace.rescore_pieces,
add unique (plan_id, piece);
comment on column millrace.scoring_runs.plan_id is 'Plan of re-scoring that the run is a piece of. The pieces are claimed, and published, together.';
comment on column millrace.scoring_runs.piece is 'Number of the piece in the plan; 0 for a run without a plan.';
comment on column millrace.scoring_runs.finished_at is 'When all was in and the run was published: from then on its predictions are the current ones.';
comment on column millrace.predictions_history.superseded_at is 'When the shard that replaces it was stored. It stays the current one until the run of that shard is published.';
comment on column millrace.predictions.run_id is 'Scoring run that made it. The prediction is current once this run is published.';
comment on table millrace.prediction_hours is 'Grain: one run and hour of event time: what it predicted there. A run that is not published does not count yet; what it replaces goes when it is published.';

-- As before, claims of a detector follow one another; only the pieces of one plan are open together.
drop index millrace.scoring_runs_one_open;
create unique index scoring_runs_one_open on millrace.scoring_runs (detector_id) where state = 'open' and piece = 0;

-- What an open run has replaced so far is still current: the views find it by this.
create index predictions_history_superseded_by on millrace.predictions_history (superseded_by);
