-- name: create_ledger
-- The table of what ran; beside the schema it describes, so that it is there before the first migration.
create table if not exists public.millrace_migrations (
    name text primary key,
    checksum text not null,
    ran_at timestamptz not null default now()
);

-- name: has_ledger
-- Whether there is a table of what ran.
select to_regclass('public.millrace_migrations') is not null;

-- name: list
-- Names and checksums of what ran.
select name, checksum from public.millrace_migrations;

-- name: record
-- Notes that a file ran, or ran again.
insert into public.millrace_migrations (name, checksum) values (:name, :checksum)
on conflict (name) do update set checksum = excluded.checksum, ran_at = now();
