-- name: list
-- How long the rows of each table are kept, and up to where days have been dropped.
select parent, keep_days, dropped_before from millrace.retention order by parent;

-- name: set
-- Says how many days of a table are kept; null keeps them for ever.
update millrace.retention set keep_days = :keep_days where parent = :parent;

-- name: forget_sessions
-- Deletes the scores of the sessions that began on one day.
delete from millrace.session_scores where started_at >= :day and started_at < :next_day;

-- name: drop
-- Drops the partition of one day, unless something in it is still to be scored or most of it has labels.
select outcome, kept from millrace.drop_partition(:parent, :day, :at_most);
