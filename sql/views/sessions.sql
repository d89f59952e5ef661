-- Grain: one session.
create view analytics.sessions with (security_invoker = true) as
select
    s.trace_id,
    s.started_at,
    s.ended_at,
    s.lines,
    s.open,
    s.score,
    s.is_anomaly,
    (array['normal', 'low', 'medium', 'high', 'critical'])[s.severity + 1] as severity,
    s.explanation,
    s.mode,
    s.trained_from,
    s.trained_to,
    s.trained_sessions,
    s.observed_until,
    s.scored_at
from millrace.session_scores as s;

comment on view analytics.sessions is 'Grain: one session (trace, block, request, container), with its score. Always filter by started_at.';
comment on column analytics.sessions.trace_id is 'Trace, block, request or container: the trace_id of its lines.';
comment on column analytics.sessions.started_at is 'Event time of its first line.';
comment on column analytics.sessions.ended_at is 'Event time of the last line that was seen of it.';
comment on column analytics.sessions.lines is 'Lines that were seen of it.';
comment on column analytics.sessions.open is 'Whether lines that such a session always has were still to come.';
comment on column analytics.sessions.score is 'Score, 0 to 1; from 0.6 on it is an anomaly.';
comment on column analytics.sessions.is_anomaly is 'Whether it is an anomaly.';
comment on column analytics.sessions.severity is 'normal (below 0.6), low (0.7), medium (0.8), high (0.9) or critical.';
comment on column analytics.sessions.explanation is 'Which templates are missing, too many, too few, unseen or out of order. Null for the others.';
comment on column analytics.sessions.mode is 'What the model learned from: unlabelled, normal or labelled sessions.';
comment on column analytics.sessions.trained_from is 'Start of the window that the model was fitted on.';
comment on column analytics.sessions.trained_to is 'End of that window.';
comment on column analytics.sessions.trained_sessions is 'Sessions that the model was fitted on.';
comment on column analytics.sessions.observed_until is 'How far its lines were followed.';
comment on column analytics.sessions.scored_at is 'When it was scored.';
