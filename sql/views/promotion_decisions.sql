-- Grain: one verdict on one candidate.
create view analytics.promotion_decisions with (security_invoker = true) as
select
    p.decision_id,
    d.name as detector,
    p.candidate_version,
    p.champion_version,
    p.kind,
    p.verdict,
    p.policy,
    p.other_verdict,
    p.candidate_f1,
    p.champion_f1,
    p.holdout_rows,
    p.holdout_positives,
    p.holdout_hash,
    p.reason,
    p.figures,
    p.as_of,
    p.decided_at,
    p.decided_by
from millrace.promotion_decisions as p
join millrace.detectors as d on p.detector_id = d.detector_id;

comment on view analytics.promotion_decisions is 'Grain: one verdict on one candidate, refusals too, with its figures and its reason.';
comment on column analytics.promotion_decisions.decision_id is 'Number of the decision.';
comment on column analytics.promotion_decisions.detector is 'Name of the detector.';
comment on column analytics.promotion_decisions.candidate_version is 'Version that was judged.';
comment on column analytics.promotion_decisions.champion_version is 'Champion that it was judged against.';
comment on column analytics.promotion_decisions.kind is 'gate, forced or rollback.';
comment on column analytics.promotion_decisions.verdict is 'promote, refuse or not_enough_evidence.';
comment on column analytics.promotion_decisions.policy is 'Policy that decided: strict or evidence.';
comment on column analytics.promotion_decisions.other_verdict is 'What the other policy would have said.';
comment on column analytics.promotion_decisions.candidate_f1 is 'F1 of the candidate on the holdout; macro-F1 for a detector with classes.';
comment on column analytics.promotion_decisions.champion_f1 is 'F1 of the champion on the same rows.';
comment on column analytics.promotion_decisions.holdout_rows is 'Labelled rows in the holdout.';
comment on column analytics.promotion_decisions.holdout_positives is 'Labelled anomalies among them.';
comment on column analytics.promotion_decisions.holdout_hash is 'The same hash means the same rows and labels.';
comment on column analytics.promotion_decisions.reason is 'The verdict in a sentence.';
comment on column analytics.promotion_decisions.figures is 'Everything behind the verdict.';
comment on column analytics.promotion_decisions.as_of is 'Time that the decision counts from.';
comment on column analytics.promotion_decisions.decided_at is 'When it was decided.';
comment on column analytics.promotion_decisions.decided_by is 'Who or which run decided.';
