-- name: hours
-- Rows, mature labelled rows and positives per hour (or minute) of event time, up to a time. Empty ones are left out.
with rows as (
    select date_bin(cast(:grain as interval), l.ts, 'epoch') as start, count(*) as rows
    from millrace.source_rows as l
    where
        l.ts <= :until and pg_visible_in_snapshot(l.ingest_xid, cast(:snapshot as pg_snapshot)) and source_has(l)
    group by 1
),

verdicts as (
    select distinct on (ts, row_id) ts, label
    from millrace.labels
    where
        subject = 'source_rows' and ts <= :until and source_has_label(labels)
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
    (select min(l.ts) from millrace.source_rows as l where l.ts <= :as_of and source_has(l)) as first_row,
    (select max(l.ts) from millrace.source_rows as l where l.ts <= :as_of and source_has(l)) as last_row,
    min(ts) as first_labelled,
    max(ts) as last_labelled
from millrace.labels
where
    subject = 'source_rows' and ts <= :as_of and source_has_label(labels)
    and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of;

-- name: in_window
-- The latest mature verdict on each row of a window. What was said after as_of hides nothing that was known then.
select distinct on (ts, row_id) row_id as log_id, label
from millrace.labels
where
    subject = 'source_rows' and ts >= :start and ts < :end
    and case origin when 'import' then ts else labelled_at end + cast(:delay as interval) <= :as_of
    and labelled_at <= coalesce(cast(:recorded_until as timestamptz), 'infinity')
order by ts, row_id, label_id desc;

-- name: stage
-- Where verdicts wait until their rows are found.
create temporary table if not exists staged_labels (
    line bigint generated always as identity, source text, source_id text not null, label text not null, note text
) on commit drop;

-- name: find_rows
-- The rows that staged verdicts name, in whichever table they are.
create temporary table if not exists staged_rows on commit drop as
select s.line, 'logs' as subject, l.ts, l.log_id as row_id
from staged_labels as s join millrace.logs as l on s.source = l.source and s.source_id = l.source_id
union all
select s.line, 'pipeline_runs', l.ts, l.row_id
from staged_labels as s join millrace.pipeline_runs as l on s.source = l.source and s.source_id = l.source_id
union all
select s.line, 'network_flows', l.ts, l.row_id
from staged_labels as s join millrace.network_flows as l on s.source = l.source and s.source_id = l.source_id;

-- name: apply_staged
-- Turns staged verdicts into labels of the rows that they name. In their order: of two on one row the later counts.
insert into millrace.labels (subject, ts, row_id, label, origin, labelled_by, note)
select l.subject, l.ts, l.row_id, s.label, :origin, :labelled_by, s.note
from staged_labels as s
join staged_rows as l on s.line = l.line
order by s.line;

-- name: misnamed
-- Staged verdicts that name no row, or several: how many of each kind there are, and the first three.
with found as (
    select s.line, s.source, s.source_id, count(l.row_id) > 1 as several
    from staged_labels as s
    left join staged_rows as l on s.line = l.line
    group by s.line, s.source, s.source_id
    having count(l.row_id) <> 1
),

ranked as (
    select
        source, source_id, several,
        count(*) over (partition by several) as verdicts,
        row_number() over (partition by several order by line) as place
    from found
)

select source, source_id, several, verdicts from ranked where place <= 3 order by several, place;
