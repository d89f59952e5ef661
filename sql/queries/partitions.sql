-- name: ensure
-- Makes the partition of one day, and moves stray rows of that day into it. True when it was missing.
select millrace.ensure_partition(:parent, :day)::int;

-- name: days
-- Days that have a partition of a table.
select to_date(right(c.relname, 8), 'YYYYMMDD')
from pg_inherits as i
join pg_class as c on i.inhrelid = c.oid
where i.inhparent = cast(:parent as regclass) and c.relname ~ '_[0-9]{8}$';
