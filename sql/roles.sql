-- Roles belong to the whole cluster, so a second database, or a run at the same time, finds them there already.
do $$
begin
    create role millrace_analyst nologin;
exception
    when duplicate_object or unique_violation then null;
end
$$;
comment on role millrace_analyst is 'Reads the views of schema analytics, and nothing it can change. Grant it to people''s own roles.';

-- The views run with the reader's own rights (security_invoker), so the reader needs the tables beneath them, read only.
revoke all on schema millrace from public;
grant usage on schema millrace, analytics to millrace_analyst;
grant select on
millrace.logs,
millrace.pipeline_runs,
millrace.network_flows,
millrace.labels,
millrace.labels_current,
millrace.detectors,
millrace.model_registry,
millrace.promotion_decisions,
millrace.scoring_runs,
millrace.predictions,
millrace.predictions_history,
millrace.prediction_hours,
millrace.session_scores
to millrace_analyst;
grant select on all tables in schema analytics to millrace_analyst;
revoke execute on all functions in schema analytics from public;
grant execute on all functions in schema analytics to millrace_analyst;
