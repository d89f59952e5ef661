-- Log records, how they came in, and what people said of them.

create schema millrace;
comment on schema millrace is 'Millrace''s own tables. Analysts read the views of schema analytics.';

create sequence millrace.log_id_seq as bigint;

create table millrace.logs (
    ts timestamptz not null,
    log_id bigint not null default nextval('millrace.log_id_seq'),
    ingested_at timestamptz not null default now(),
    ingest_xid xid8 not null default pg_current_xact_id(),
    response_time_ms real check (response_time_ms >= 0 and response_time_ms < 'infinity'),
    status_code smallint,
    source text not null default 'sql',
    source_id text,
    level text,
    service text,
    host text,
    trace_id text,
    message text not null,
    attributes jsonb,
    primary key (ts, log_id),
    -- What lies beyond, infinity above all, no program but PostgreSQL can compute with: one such row would stop every claim.
    constraint logs_ts_range check (ts >= '0001-01-02 00:00+00' and ts < '9999-12-31 00:00+00')
) partition by range (ts);
-- A claim is a range of transaction ids; xid8 has no BRIN operator class.
create index logs_ingest_xid on millrace.logs (ingest_xid);
create table millrace.logs_default partition of millrace.logs default;

comment on table millrace.logs is 'Grain: one log line. Partitioned by day of ts. Any program may insert; only ts and message are required.';
comment on column millrace.logs.ts is 'When the event happened, as the line says.';
comment on column millrace.logs.log_id is 'Unique number of the line, given on arrival.';
comment on column millrace.logs.ingested_at is 'Start of the transaction that inserted the line.';
comment on column millrace.logs.ingest_xid is 'Transaction that inserted the line. Scoring claims rows by it; never set it yourself.';
comment on column millrace.logs.response_time_ms is 'Duration of the request that the line tells of, in milliseconds.';
comment on column millrace.logs.status_code is 'HTTP status of the request that the line tells of.';
comment on column millrace.logs.source is 'Where the line came from: a file''s name, a shipper''s name, or sql.';
comment on column millrace.logs.source_id is 'The line''s own id within its source, else its line number.';
comment on column millrace.logs.level is 'Level as the line has it.';
comment on column millrace.logs.service is 'Service, component or logger that wrote the line.';
comment on column millrace.logs.host is 'Host that wrote the line.';
comment on column millrace.logs.trace_id is 'Trace, block or request that the line belongs to.';
comment on column millrace.logs.message is 'The text of the line. Untrusted: escape it wherever it is shown.';
comment on column millrace.logs.attributes is 'Whatever else the line said, by key.';

create table millrace.ingest_files (
    file_id bigint generated always as identity primary key,
    path text not null,
    source text not null,
    format text not null,
    digest text not null check (digest ~ '^[0-9a-f]{64}$'),
    bytes bigint not null,
    modified_at timestamptz not null,
    state text not null check (state in ('loaded', 'refused', 'skipped')),
    reason text,
    own_ids boolean not null default false,
    last_line bigint not null default 0,
    rows bigint not null default 0,
    rejected bigint not null default 0,
    labels bigint not null default 0,
    first_ts timestamptz,
    last_ts timestamptz,
    first_id text collate "C",
    last_id text collate "C",
    loaded_at timestamptz not null default now(),
    constraint ingest_files_reason check ((state = 'loaded') = (reason is null))
);
-- A file is loaded once, whatever it is called the second time.
create unique index ingest_files_loaded_once on millrace.ingest_files (digest) where state = 'loaded';
create index ingest_files_path on millrace.ingest_files (path);
create index ingest_files_source on millrace.ingest_files (source);

comment on table millrace.ingest_files is 'Grain: one file that was loaded, refused or skipped. Written in the transaction that loaded its lines.';
comment on column millrace.ingest_files.file_id is 'Number of the file.';
comment on column millrace.ingest_files.path is 'Where the file lay when it was read.';
comment on column millrace.ingest_files.source is 'Source given to its lines.';
comment on column millrace.ingest_files.format is 'Log format it was read as.';
comment on column millrace.ingest_files.digest is 'SHA-256 of the file as it lay there. A loaded digest is never loaded again.';
comment on column millrace.ingest_files.bytes is 'Size of the file as it lay there.';
comment on column millrace.ingest_files.modified_at is 'When the file was last changed. Same path, size and time: not read again.';
comment on column millrace.ingest_files.state is 'loaded, refused as a whole, or skipped, because its content had been loaded or refused before.';
comment on column millrace.ingest_files.reason is 'Why the file as a whole was refused or skipped.';
comment on column millrace.ingest_files.own_ids is 'Whether its lines carry ids of their own; otherwise source_id is the line number.';
comment on column millrace.ingest_files.last_line is 'Number of physical lines read.';
comment on column millrace.ingest_files.rows is 'Lines that became rows of logs.';
comment on column millrace.ingest_files.rejected is 'Lines that went to ingest_rejects.';
comment on column millrace.ingest_files.labels is 'Labels that came inside the file.';
comment on column millrace.ingest_files.first_ts is 'Earliest event time among its rows.';
comment on column millrace.ingest_files.last_ts is 'Latest event time among its rows.';
comment on column millrace.ingest_files.first_id is 'Lowest source_id among its rows, byte by byte.';
comment on column millrace.ingest_files.last_id is 'Highest source_id among its rows, byte by byte.';
comment on column millrace.ingest_files.loaded_at is 'When it was loaded, refused or first skipped.';

create table millrace.ingest_rejects (
    reject_id bigint generated always as identity primary key,
    file_id bigint not null references millrace.ingest_files,
    line_number bigint not null,
    byte_offset bigint not null,
    raw bytea not null,
    reason text not null
);
create index ingest_rejects_file on millrace.ingest_rejects (file_id);

comment on table millrace.ingest_rejects is 'Grain: one line that could not become a row. Nothing is thrown away: its bytes are here.';
comment on column millrace.ingest_rejects.reject_id is 'Number of the reject.';
comment on column millrace.ingest_rejects.file_id is 'File that it came in.';
comment on column millrace.ingest_rejects.line_number is 'Physical line in that file, from 1.';
comment on column millrace.ingest_rejects.byte_offset is 'Where the line starts in the (unpacked) file.';
comment on column millrace.ingest_rejects.raw is 'The bytes of the line; an over-long line is cut, and the reason says how long it was.';
comment on column millrace.ingest_rejects.reason is 'Why it was refused.';

create table millrace.labels (
    label_id bigint generated always as identity primary key,
    subject text not null default 'logs' check (subject in ('logs', 'pipeline_runs', 'network_flows')),
    ts timestamptz not null,
    row_id bigint not null,
    label text not null check (label <> ''),
    origin text not null check (origin in ('import', 'analyst')),
    labelled_by text not null default current_user,
    labelled_at timestamptz not null default now(),
    note text
);
create index labels_row on millrace.labels (subject, ts, row_id, label_id desc);

comment on table millrace.labels is 'Grain: one verdict of somebody on one row. A later verdict on the row supersedes; none is deleted.';
comment on column millrace.labels.label_id is 'Number of the verdict; the highest of a row counts.';
comment on column millrace.labels.subject is 'Table that the row is in.';
comment on column millrace.labels.ts is 'Event time of the row.';
comment on column millrace.labels.row_id is 'Id of the row, log_id for logs.';
comment on column millrace.labels.label is 'The verdict: 0 normal, 1 anomaly, or a class.';
comment on column millrace.labels.origin is 'import: came with the data and counts as known at the row''s own time. analyst: known when it was given.';
comment on column millrace.labels.labelled_by is 'Who gave the verdict, or which file it came in.';
comment on column millrace.labels.labelled_at is 'When it was recorded.';
comment on column millrace.labels.note is 'Why, in the words of whoever gave it.';

create view millrace.labels_current as
select distinct on (subject, ts, row_id)
    subject,
    ts,
    row_id,
    label,
    origin,
    labelled_by,
    labelled_at,
    note
from millrace.labels
order by subject, ts, row_id, label_id desc;
comment on view millrace.labels_current is 'Grain: one labelled row, with its latest verdict.';
comment on column millrace.labels_current.subject is 'Table that the row is in.';
comment on column millrace.labels_current.ts is 'Event time of the row.';
comment on column millrace.labels_current.row_id is 'Id of the row, log_id for logs.';
comment on column millrace.labels_current.label is 'The latest verdict: 0 normal, 1 anomaly, or a class.';
comment on column millrace.labels_current.origin is 'import: came with the data. analyst: given later.';
comment on column millrace.labels_current.labelled_by is 'Who gave the verdict, or which file it came in.';
comment on column millrace.labels_current.labelled_at is 'When it was recorded.';
comment on column millrace.labels_current.note is 'Why, in the words of whoever gave it.';

-- Makes the partition of one day. Rows of that day that lie in the default partition move into it, each with its own
-- ingest_xid, so that no claim sees them as new. LIKE + ATTACH, because CREATE ... PARTITION OF would lock out readers.
create function millrace.ensure_partition(parent text, day date) returns boolean
language plpgsql as $$
declare
    child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    lower_bound timestamptz := day::timestamp at time zone 'UTC';
    upper_bound timestamptz := (day + 1)::timestamp at time zone 'UTC';
begin
    if to_regclass('millrace.' || quote_ident(child)) is not null then
        return false;
    end if;
    -- Readers and writers pass. The parent before its partition, as ANALYZE locks them, so that neither waits for ever.
    execute format('lock table only millrace.%I in share update exclusive mode', parent);
    -- Not by to_regclass: it could answer out of the cache, as things stood before the wait.
    if exists (select from pg_class where relname = child and relnamespace = 'millrace'::regnamespace) then
        return false;
    end if;
    execute format('lock table millrace.%I in access exclusive mode', parent || '_default');
    execute format('create table millrace.%I (like millrace.%I including all)', child, parent);
    execute format(
        'with strays as (delete from millrace.%I where ts >= $1 and ts < $2 returning *) insert into millrace.%I select * from strays',
        parent || '_default', child
    ) using lower_bound, upper_bound;
    execute format(
        'alter table millrace.%I attach partition millrace.%I for values from (%L) to (%L)',
        parent, child, lower_bound, upper_bound
    );
    return true;
end
$$;
comment on function millrace.ensure_partition is 'Makes the partition of a table for one day (UTC), and says whether it had to.';
