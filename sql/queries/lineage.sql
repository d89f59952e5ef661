-- name: get
-- What a version was trained from, and what came out.
select
    m.status, m.artifact_digest, m.algorithm, m.parameters, m.feature_names, m.threshold, m.seed, m.training_rows,
    m.label_counts, m.data_hash, m.code_revision, m.library_versions, m.as_of, m.trained_at, m.snapshot::text,
    lower(m.train_window) as train_start, upper(m.train_window) as train_end,
    lower(m.validation_window) as validation_start, upper(m.validation_window) as validation_end,
    lower(m.holdout_window) as holdout_start, upper(m.holdout_window) as holdout_end
from millrace.model_registry as m join millrace.detectors as d using (detector_id)
where d.name = :detector and m.version = :version;

-- name: training_time
-- The time that a version has as trained_at when it is stored in this transaction.
select now() as training_time;

-- name: snapshot_by_ingestion
-- A snapshot that sees the rows of a window but those ingested after a time, for versions that kept none.
with late as (
    select distinct ingest_xid from millrace.source_rows
    where ts >= :start and ts < :end and ingested_at > :moment
),

ids as (select ingest_xid::text::bigint as id from late)

select
    coalesce(min(id), pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
    || ':' || greatest(max(id) + 1, pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
    || ':' || coalesce(string_agg(id::text, ',' order by id), '') as snapshot
from ids;

-- name: adopted_since
-- When the database was last made at home in another cluster after a time; null where it has not moved.
select max(recorded_at) as adopted_at from millrace.database_identity where epoch > 1 and recorded_at > :moment;
