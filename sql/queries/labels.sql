-- name: hours
-- Rows, mature labelled rows and positives per hour (or minute) of event time, up to a time. Empty ones are left out.
with rows as (
    select date_bin(cast(:grain as interval), ts, 'epoch') as start, count(*) as rows
    from millrace.logs
    where ts <= :until and pg_visible_in_snapshot(ingest_xid, cast(:snapshot as pg_snapshot))
    group by 1
),

verdicts as (
    select distinct on (ts, row_id) ts, label
    from millrace.labels
    where
        subject = 'logs' and ts <= :until
        and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of
    order by ts, row_id, label_id desc
),

labelled as (
    select
        date_bin(cast(:grain as interval), ts, 'epoch') as start,
        count(*) as labelled,
        count(*) filter (where label <> '0') as positives
    from verdicts
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
from millrace.labels
where
    subject = 'logs' and ts <= :as_of
    and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of;

-- name: in_window
-- The latest mature verdict on each row of a window. What was said after as_of hides nothing that was known then.
select distinct on (ts, row_id) row_id as log_id, label
from millrace.labels
where
    subject = 'logs' and ts >= :start and ts < :end
    and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of
    and labelled_at <= coalesce(cast(:recorded_until as timestamptz), 'infinity')
order by ts, row_id, label_id desc;

-- name: stage
-- Where verdicts wait until their rows are found.
create temporary table if not exists staged_labels (
    line bigint generated always as identity, source text, source_id text not null, label text not null, note text
) on commit drop;

-- name: apply_staged
-- Turns staged verdicts into labels of the rows that they name. In their order: of two on one row the later counts.
insert into millrace.labels (ts, row_id, label, origin, labelled_by, note)
select l.ts, l.log_id, s.label, :origin, :labelled_by, s.note
from staged_labels as s
join millrace.logs as l on s.source = l.source and s.source_id = l.source_id
order by s.line;

-- name: misnamed
-- Staged verdicts that name no row, or several: how many of each kind there are, and the first three.
with found as (
    select s.line, s.source, s.source_id, count(l.log_id) > 1 as several
    from staged_labels as s
    left join millrace.logs as l on s.source = l.source and s.source_id = l.source_id
    group by s.line, s.source, s.source_id
    having count(l.log_id) <> 1
),

ranked as (
    select
        source, source_id, several,
        count(*) over (partition by several) as verdicts,
        row_number() over (partition by several order by line) as place
    from found
)

select source, source_id, several, verdicts from ranked where place <= 3 order by several, place;
