-- A file that has grown goes on where its last load ended; each load is a row of its own.

alter table millrace.ingest_files
add column continues bigint references millrace.ingest_files,
add column loaded_bytes bigint,
add column content_digest text check (content_digest ~ '^[0-9a-f]{64}$'),
add column first_line text check (first_line ~ '^[0-9a-f]{64}$'),
add column waiting boolean not null default false,
add column year smallint,
add column etag text;

-- What was loaded before this migration was loaded to its end. Of packed files the content is not known.
update millrace.ingest_files set loaded_bytes = bytes, content_digest = digest where state = 'loaded';

-- A longer file is compared with those that begin with the same line.
create index ingest_files_first_line on millrace.ingest_files (first_line) where state = 'loaded';

comment on table millrace.ingest_files is 'Grain: one load of a file, or one file that was refused or skipped. Written in the transaction that loaded its lines.';
comment on column millrace.ingest_files.digest is 'SHA-256 of the packed file, or of the first loaded_bytes of a plain one. A loaded digest is never loaded again.';
comment on column millrace.ingest_files.last_line is 'Number of physical lines read, those of the earlier loads included.';
comment on column millrace.ingest_files.continues is 'The first load of the same file, where this one took what had been added since.';
comment on column millrace.ingest_files.loaded_bytes is 'How far the loads of the file reach by now, in bytes of its unpacked content.';
comment on column millrace.ingest_files.content_digest is 'SHA-256 of these bytes: a file that begins with them is the same file, grown or renamed.';
comment on column millrace.ingest_files.first_line is 'SHA-256 of the first line, by which a grown file finds its earlier loads.';
comment on column millrace.ingest_files.waiting is 'Whether a last line without an end was left to be loaded later.';
comment on column millrace.ingest_files.year is 'Year of the first line, as it was given, where the time stamps have none.';
comment on column millrace.ingest_files.etag is 'The object store''s mark of this state of the file, where there is one.';
