-- name: lock
-- Held until the file is in, so that two loads of the same file follow one another.
select pg_advisory_xact_lock(hashtextextended(:digest, 0));

-- name: earlier
-- Loads that a file with this first line may continue: their content came to something, a header alone does not count.
select
    coalesce(continues, file_id) as first_load, path, source, format, year,
    loaded_bytes, last_line, content_digest, loaded_at
from millrace.ingest_files
where
    state = 'loaded' and loaded_bytes > 0 and (rows > 0 or rejected > 0 or continues is not null)
    and (first_line = :first_line or (first_line is null and path = :path))
order by loaded_bytes desc, file_id desc;

-- name: paths_of_source
-- Where the loaded files of a source lay.
select distinct path from millrace.ingest_files where source = :source and state = 'loaded';

-- name: free_source
-- The first name of the form app.2 that no source has yet.
with names as (
    select n, :source || '.' || n as name from generate_series(2, 1000000) as numbers (n)
)

select names.name from names
where not exists (select from millrace.ingest_files as f where f.source = names.name and f.state = 'loaded')
order by names.n
limit 1;

-- name: loaded
-- Where and when a file with this digest was loaded.
select path, source, loaded_at from millrace.ingest_files where digest = :digest and state = 'loaded';

-- name: refused
-- Why a file with this digest was refused under this source and format, if it was.
select reason from millrace.ingest_files
where digest = :digest and source = :source and format = :format and state = 'refused'
order by file_id desc limit 1;

-- name: lock_source
-- Held from the last look at earlier files of a source until this one is in, so that two at once see one another.
select pg_advisory_xact_lock(hashtextextended(:source, 1));

-- name: numbered_by_line
-- An earlier file of the same source whose line numbers would be those of a new one.
select path from millrace.ingest_files
where
    source = :source and state = 'loaded' and rows > 0 and not own_ids
    and coalesce(continues, file_id) <> :chain
order by file_id desc limit 1;

-- name: overlapping_ids
-- Event times of the earlier files of the same source whose ids may be those of a new one, null where none may.
select min(first_ts) as first_ts, max(last_ts) as last_ts from millrace.ingest_files
where source = :source and state = 'loaded' and first_id <= :last_id and last_id >= :first_id;

-- name: repeated_id
-- A line of this transaction whose id an earlier line of the same source has, between two event times.
select fresh.source_id
from millrace.source_rows as fresh
join millrace.source_rows as earlier on fresh.source = earlier.source and fresh.source_id = earlier.source_id
where
    fresh.ingest_xid = pg_current_xact_id()
    and fresh.source = :source
    and earlier.ingest_xid <> pg_current_xact_id()
    and earlier.ts between :first_ts and :last_ts
limit 1;

-- name: add_file
-- Notes a file that is being loaded; its counts follow.
insert into millrace.ingest_files
(
    path, source, format, digest, bytes, modified_at, etag,
    first_line, content_digest, loaded_bytes, waiting, year, continues, state
)
values (
    :path, :source, :format, :digest, :bytes, :modified_at, :etag,
    :first_line, :content_digest, :loaded_bytes, :waiting, :year, :continues, 'loaded'
)
returning file_id;

-- name: finish_file
-- Fills in the counts of a file.
update millrace.ingest_files
set
    own_ids = :own_ids, last_line = :last_line, rows = :rows, rejected = :rejected, labels = :labels,
    first_ts = :first_ts, last_ts = :last_ts, first_id = :first_id, last_id = :last_id
where file_id = :file_id;

-- name: refuse_file
-- Notes a file that was refused as a whole, and why.
insert into millrace.ingest_files (path, source, format, digest, bytes, modified_at, etag, state, reason)
values (:path, :source, :format, :digest, :bytes, :modified_at, :etag, 'refused', :reason);

-- name: skip_file
-- Notes a file that was skipped, and why, so that it need not be read again; once for each state of the file.
insert into millrace.ingest_files (path, source, format, digest, bytes, modified_at, etag, waiting, state, reason)
select :path, :source, :format, :digest, :bytes, :modified_at, cast(:etag as text), :waiting, 'skipped', :reason
where not exists (
    select from millrace.ingest_files
    where
        path = :path and bytes = :bytes and modified_at = :modified_at
        and etag is not distinct from cast(:etag as text) and waiting = :waiting
);

-- name: row_ids
-- Numbers for rows that are about to be copied in, as one array.
select coalesce(array_agg(nextval('millrace.log_id_seq')), '{}') from generate_series(1, :rows);

-- name: recent_rejects
-- The latest refused lines by file and reason.
select f.path, r.reason, count(*) as lines, min(r.line_number) as first_line
from millrace.ingest_rejects as r join millrace.ingest_files as f using (file_id)
where r.file_id = any(:files)
group by 1, 2 order by 3 desc limit 5;

-- name: known
-- Files that were loaded or skipped at these paths, or also refused, as they were then, and have no line that waits.
select distinct path, bytes, modified_at, etag from millrace.ingest_files
where
    path = any(:paths)
    and (state <> 'refused' or cast(:with_refused as boolean))
    and (not waiting or modified_at >= :settled_before);
