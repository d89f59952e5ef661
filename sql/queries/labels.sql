-- name: hours
-- Rows, mature labelled rows and positives per hour (or minute) of event time, up to a time. Empty ones are left out.
with rows as (
    select date_bin(cast(:grain as interval), ts, 'epoch') as start, count(*) as rows
    from millrace.logs
    where ts <= :until and pg_visible_in_snapshot(ingest_xid, cast(:snapshot as pg_snapshot))
    group by 1
),

labelled as (
    select
        date_bin(cast(:grain as interval), ts, 'epoch') as start,
        count(*) as labelled,
        count(*) filter (where label <> '0') as positives
    from millrace.labels_current
    where
        subject = 'logs' and ts <= :until
        and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of
    group by 1
)

select rows.start, rows.rows, coalesce(labelled.labelled, 0) as labelled, coalesce(labelled.positives, 0) as positives
from rows left join labelled using (start)
order by 1;

-- name: extent
-- First row, last row, and first and last mature labelled row up to a time.
select
    (select min(ts) from millrace.logs where ts <= :as_of) as first_row,
    (select max(ts) from millrace.logs where ts <= :as_of) as last_row,
    min(ts) as first_labelled,
    max(ts) as last_labelled
from millrace.labels_current
where
    subject = 'logs' and ts <= :as_of
    and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of;

-- name: in_window
-- Mature verdicts on rows of a window, one a row.
select row_id as log_id, label
from millrace.labels_current
where
    subject = 'logs' and ts >= :start and ts < :end
    and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of;

-- name: stage
-- Where verdicts wait until their rows are found.
create temporary table if not exists staged_labels (
    source text, source_id text not null, label text not null, note text
) on commit drop;

-- name: apply_staged
-- Turns staged verdicts into labels of the rows that they name.
insert into millrace.labels (ts, row_id, label, origin, labelled_by, note)
select l.ts, l.log_id, s.label, :origin, :labelled_by, s.note
from staged_labels as s
join millrace.logs as l on l.source = s.source and l.source_id = s.source_id;

-- name: apply_staged_new
-- The same for rows that this very transaction inserted.
insert into millrace.labels (ts, row_id, label, origin, labelled_by, note)
select l.ts, l.log_id, s.label, 'import', :labelled_by, s.note
from staged_labels as s
join millrace.logs as l on l.source = s.source and l.source_id = s.source_id
where l.ingest_xid = pg_current_xact_id();

-- name: unmatched
-- Some staged verdicts whose row was not found, and how many there are.
select s.source, s.source_id, count(*) over () as missing
from staged_labels as s
where not exists (select from millrace.logs as l where l.source = s.source and l.source_id = s.source_id)
limit 3;
