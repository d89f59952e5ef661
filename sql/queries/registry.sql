-- name: champion
-- The version in production, if there is one.
select m.version from millrace.model_registry as m join millrace.detectors as d using (detector_id)
where d.name = :detector and m.status = 'champion';

-- name: lock_champion
-- The version in production, held until the transaction ends, so that promotions follow one another.
select m.version from millrace.model_registry as m
where m.detector_id = :detector_id and m.status = 'champion'
for update;

-- name: lock_detector
-- Held while a version is numbered or promoted: without a champion there is no row to lock.
select detector_id from millrace.detectors where detector_id = :detector_id for update;

-- name: next_version
-- The number of the next version.
select coalesce(max(version), 0) + 1 from millrace.model_registry where detector_id = :detector_id;

-- name: store_artifact
-- Keeps a serialised model; the same bytes are kept once.
insert into millrace.model_artifacts (digest, content) values (:digest, :content)
on conflict (digest) do nothing;

-- name: load_artifact
-- Bytes and digest of a version's model.
select a.content, m.artifact_digest
from millrace.model_registry as m
join millrace.detectors as d using (detector_id)
join millrace.model_artifacts as a on m.artifact_digest = a.digest
where d.name = :detector and m.version = :version;

-- name: insert_version
-- Stores a candidate.
insert into millrace.model_registry
(
    detector_id, version, artifact_digest, algorithm, parameters, feature_names, threshold, seed,
    train_window, validation_window, holdout_window, training_rows, label_counts, data_hash, validation_metrics,
    code_revision, library_versions, as_of, trained_by, snapshot
)
values (
    :detector_id, :version, :artifact_digest, :algorithm, cast(:parameters as jsonb), :feature_names, :threshold, :seed,
    tstzrange(:train_start, :train_end),
    case when cast(:validation_start as timestamptz) is not null then tstzrange(:validation_start, :validation_end) end,
    case when cast(:holdout_start as timestamptz) is not null then tstzrange(:holdout_start, :holdout_end) end,
    :training_rows, cast(:label_counts as jsonb), :data_hash,
    cast(:validation_metrics as jsonb), :code_revision, cast(:library_versions as jsonb), :as_of, :trained_by,
    cast(:snapshot as pg_snapshot)
);

-- name: get_version
-- One version, with what judging it needs.
select
    d.name as detector, m.version, m.status, m.algorithm, m.threshold, m.as_of, m.trained_at, m.training_rows,
    lower(m.train_window) as train_start, upper(m.train_window) as train_end,
    lower(m.validation_window) as validation_start, upper(m.validation_window) as validation_end,
    lower(m.holdout_window) as holdout_start, upper(m.holdout_window) as holdout_end
from millrace.model_registry as m join millrace.detectors as d using (detector_id)
where d.name = :detector and m.version = :version;

-- name: champion_at
-- The version that was champion at a time, if there was one.
select millrace.champion_at(:detector, :moment);

-- name: list_versions
-- Versions of one detector, or of all, newest first, with the last verdict on each.
select detector, version, status, algorithm, verdict, f1, champion_f1, training_rows, as_of, trained_at, reason
from analytics.model_history
where detector = coalesce(:detector, detector)
order by detector, version desc;

-- name: judged_against
-- The champion that the last gate decision on a version compared it with.
select p.champion_version from millrace.promotion_decisions as p
where p.detector_id = :detector_id and p.candidate_version = :version and p.kind = 'gate'
order by p.decision_id desc limit 1;

-- name: set_status
-- Moves a version to another status.
update millrace.model_registry set status = :status where detector_id = :detector_id and version = :version;

-- name: refuse
-- Marks a candidate refused; not one that somebody has promoted by hand meanwhile.
update millrace.model_registry set status = 'refused'
where detector_id = :detector_id and version = :version and status in ('candidate', 'challenger');

-- name: previous_champion
-- Promotions are a stack that a rollback takes one from: the one beneath the top is the champion before the present one.
with steps as (
    select
        decision_id,
        candidate_version,
        kind,
        sum(case kind when 'rollback' then -1 else 1 end) over (order by decision_id) as depth
    from millrace.promotion_decisions
    where detector_id = :detector_id and verdict = 'promote'
)

select candidate_version from steps
where kind <> 'rollback' and depth = (select s.depth from steps as s order by s.decision_id desc limit 1) - 1
order by decision_id desc limit 1;

-- name: insert_decision
-- Records a verdict.
insert into millrace.promotion_decisions
(
    detector_id, candidate_version, champion_version, kind, verdict, policy, other_verdict, candidate_f1, champion_f1,
    holdout_rows, holdout_positives, holdout_hash, figures, reason, as_of, decided_by
)
values (
    :detector_id, :candidate_version, :champion_version, :kind, :verdict, :policy, :other_verdict, :candidate_f1,
    :champion_f1, :holdout_rows, :holdout_positives, :holdout_hash, cast(:figures as jsonb), :reason, :as_of,
    :decided_by
)
returning decision_id;

-- name: holdout_looks
-- How many verdicts of the gate on a detector's candidates have come from the same rows and labels so far.
select count(*)
from millrace.promotion_decisions as p join millrace.detectors as d using (detector_id)
where d.name = :detector and p.holdout_hash = :holdout_hash and p.kind = 'gate';
