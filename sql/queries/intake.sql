-- name: lock
-- Held until the file is in, so that two loads of the same file follow one another.
select pg_advisory_xact_lock(hashtextextended(:digest, 0));

-- name: loaded
-- Where and when a file with this digest was loaded.
select path, source, loaded_at from millrace.ingest_files where digest = :digest and state = 'loaded';

-- name: refused
-- Why a file with this digest was refused under this source, if it was.
select reason from millrace.ingest_files
where digest = :digest and source = :source and state = 'refused'
order by file_id desc limit 1;

-- name: same_source
-- An earlier file of the same source; its line numbers would be those of the new one.
select path, own_ids from millrace.ingest_files
where source = :source and state = 'loaded' and rows > 0
order by own_ids, file_id desc limit 1;

-- name: repeated_id
-- A line of this transaction whose id an earlier line of the same source has, at a time that this file covers.
select fresh.source_id
from millrace.logs as fresh
join millrace.logs as earlier on fresh.source = earlier.source and fresh.source_id = earlier.source_id
where
    fresh.ingest_xid = pg_current_xact_id()
    and fresh.source = :source
    and earlier.ingest_xid <> pg_current_xact_id()
    and earlier.ts between :first_ts and :last_ts
limit 1;

-- name: add_file
-- Notes a file that is being loaded; its counts follow.
insert into millrace.ingest_files (path, source, format, digest, bytes, modified_at, state)
values (:path, :source, :format, :digest, :bytes, :modified_at, 'loaded')
returning file_id;

-- name: finish_file
-- Fills in the counts of a file.
update millrace.ingest_files
set
    own_ids = :own_ids, last_line = :last_line, rows = :rows, rejected = :rejected, labels = :labels,
    first_ts = :first_ts, last_ts = :last_ts
where file_id = :file_id;

-- name: refuse_file
-- Notes a file that was refused as a whole, and why.
insert into millrace.ingest_files (path, source, format, digest, bytes, modified_at, state, reason)
values (:path, :source, :format, :digest, :bytes, :modified_at, 'refused', :reason);

-- name: recent_rejects
-- The latest refused lines by file and reason.
select f.path, r.reason, count(*) as lines, min(r.line_number) as first_line
from millrace.ingest_rejects as r join millrace.ingest_files as f using (file_id)
where r.file_id = any(:files)
group by 1, 2 order by 3 desc limit 5;

-- name: known
-- Files that were loaded or refused from these paths, as they were then.
select distinct path, bytes, modified_at from millrace.ingest_files where path = any(:paths);
