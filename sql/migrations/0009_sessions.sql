-- Sessions, all lines of one trace, have one score each, kept apart from the predictions of rows.

create table millrace.session_scores (
    started_at timestamptz not null,
    ended_at timestamptz not null check (ended_at >= started_at),
    trained_from timestamptz not null,
    trained_to timestamptz not null check (trained_to > trained_from),
    observed_until timestamptz not null,
    scored_at timestamptz not null default now(),
    lines integer not null check (lines > 0),
    trained_sessions integer not null,
    score real not null check (score >= 0 and score <= 1),
    severity smallint not null check (severity between 0 and 4),
    open boolean not null,
    is_anomaly boolean not null,
    trace_id text not null,
    mode text not null check (mode in ('unlabelled', 'normal', 'labelled')),
    explanation jsonb,
    primary key (started_at, trace_id)
);
create index session_scores_trace_id on millrace.session_scores (trace_id);

comment on table millrace.session_scores is 'Grain: one session, with its score. A run over a window replaces the scores of the sessions that began in it.';
comment on column millrace.session_scores.started_at is 'Event time of its first line.';
comment on column millrace.session_scores.ended_at is 'Event time of the last line that was seen of it.';
comment on column millrace.session_scores.trained_from is 'Start of the window that the model was fitted on.';
comment on column millrace.session_scores.trained_to is 'End of that window.';
comment on column millrace.session_scores.observed_until is 'How far its lines were followed.';
comment on column millrace.session_scores.scored_at is 'When it was scored.';
comment on column millrace.session_scores.lines is 'Lines that were seen of it.';
comment on column millrace.session_scores.trained_sessions is 'Sessions that the model was fitted on.';
comment on column millrace.session_scores.score is 'Score, 0 to 1; from 0.6 on it is an anomaly.';
comment on column millrace.session_scores.severity is '0 normal, 1 low, 2 medium, 3 high, 4 critical.';
comment on column millrace.session_scores.open is 'Whether lines that such a session always has were still to come.';
comment on column millrace.session_scores.is_anomaly is 'Whether it is an anomaly.';
comment on column millrace.session_scores.trace_id is 'Trace, block, request or container: the trace_id of its lines.';
comment on column millrace.session_scores.mode is 'What the model learned from: unlabelled sessions, normal ones only, or labelled ones.';
comment on column millrace.session_scores.explanation is 'Why it is an anomaly; null for the others.';
