-- name: rows_of_source
-- Rows of a source and labelled rows among them.
select
    (select count(*) from millrace.source_rows as l where source_has(l)) as rows,
    (
        select count(*) from millrace.labels_current as c where c.subject = 'source_rows' and source_has_label(c)
    ) as labels;

-- name: champions
-- The model in production of each detector, with its F1 where the gate measured one.
select detector, version, f1, as_of from analytics.model_history where status = 'champion' order by detector;

-- name: decisions
-- The latest decision on each detector.
select distinct on (detector) detector, candidate_version as version, kind, verdict, reason
from analytics.promotion_decisions
order by detector, decision_id desc;

-- name: top_runs
-- As top_anomalies, of CI/CD runs: the highest of each repository and hour.
select ts, score, severity, level, service, message
from (
    select distinct on (repository, date_trunc('hour', ts))
        ts, score, severity, provider as level, repository as service,
        concat_ws(' ', workflow, 'on', branch, array_to_string(hosts, ' ')) as message
    from analytics.pipeline_predictions
    where detector = :detector and is_anomaly
    order by repository, date_trunc('hour', ts), score desc, ts desc
) as worst
order by score desc, ts desc
limit :at_most;

-- name: top_flows
-- As top_anomalies, of network flows: the highest of each sender and hour.
select ts, score, severity, level, service, message
from (
    select distinct on (src_ip, date_trunc('hour', ts))
        ts, score, severity, class as level, protocol as service,
        concat_ws(
            ': ',
            coalesce(nullif(concat(src_ip, ' to ' || dst_ip, ' port ' || dst_port), ''), features ->> 'service'),
            explanation ->> 'look_at'
        ) as message
    from analytics.flow_predictions
    where detector = :detector and is_anomaly
    order by src_ip, date_trunc('hour', ts), score desc, ts desc
) as worst
order by score desc, ts desc
limit :at_most;

-- name: top_anomalies
-- The highest score of each service and hour, the highest of them first: one incident does not fill the list.
select ts, score, severity, level, service, message
from (
    select distinct on (service, date_trunc('hour', ts))
        ts, score, severity, level, service, left(message, 500) as message
    from analytics.predictions_current
    where detector = :detector and is_anomaly
    order by service, date_trunc('hour', ts), score desc, ts desc
) as worst
order by score desc, ts desc
limit :at_most;

-- name: scored
-- Predictions of one detector, and anomalies among them.
select coalesce(sum(h.rows), 0)::bigint as scored, coalesce(sum(h.anomalies), 0)::bigint as anomalies
from analytics.scoring_hourly as h
where h.detector = :detector;
