-- name: slice_contents
-- What each of a version's slices holds: its rows by what tells them apart, such as service and level, each combination once.
with slices (slice, during) as (
    select s.slice, s.during
    from millrace.model_registry as r
    inner join millrace.detectors as d on d.detector_id = r.detector_id
    cross join lateral (
        values ('train', r.train_window), ('validation', r.validation_window), ('holdout', r.holdout_window)
    ) as s (slice, during)
    where d.name = :detector and r.version = :version and s.during is not null
)

select s.slice, source_segments(l) as segments, count(*) as rows
from slices as s
inner join millrace.source_rows as l on l.ts >= lower(s.during) and l.ts < upper(s.during) and source_has(l)
group by 1, 2;
