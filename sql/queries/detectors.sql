-- name: find
-- The number of a detector.
select detector_id from millrace.detectors where name = :name;

-- name: add
-- Gives a detector its number; somebody else may be doing the same.
insert into millrace.detectors (name, source, form) values (:name, :source, :form) on conflict (name) do nothing;
