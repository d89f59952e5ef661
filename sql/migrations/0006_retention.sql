-- How long rows are kept, and which cluster's transaction ids the rows carry.

create table millrace.retention (
    parent text primary key check (parent in ('logs', 'predictions', 'predictions_history')),
    keep_days integer check (keep_days > 0),
    dropped_before date
);
insert into millrace.retention (parent) values ('logs'), ('predictions'), ('predictions_history');
comment on table millrace.retention is 'Grain: one partitioned table, with how long its rows are kept.';
comment on column millrace.retention.parent is 'The table.';
comment on column millrace.retention.keep_days is 'Days of event time that are kept; null keeps them for ever.';
comment on column millrace.retention.dropped_before is 'Days before this one may have been dropped; null when none ever was.';

create table millrace.labels_put_away (
    like millrace.labels,
    put_away_at timestamptz not null default now()
);
comment on table millrace.labels_put_away is 'Grain: one verdict whose row somebody has deleted. The columns are those of labels, and when it was put here.';
comment on column millrace.labels_put_away.label_id is 'Number of the verdict.';
comment on column millrace.labels_put_away.subject is 'Table that the row was in.';
comment on column millrace.labels_put_away.ts is 'Event time of the row.';
comment on column millrace.labels_put_away.row_id is 'Id of the row.';
comment on column millrace.labels_put_away.label is 'The verdict.';
comment on column millrace.labels_put_away.origin is 'import: came with the data. analyst: given later.';
comment on column millrace.labels_put_away.labelled_by is 'Who gave the verdict, or which file it came in.';
comment on column millrace.labels_put_away.labelled_at is 'When it was recorded.';
comment on column millrace.labels_put_away.note is 'Why, in the words of whoever gave it.';
comment on column millrace.labels_put_away.put_away_at is 'When it was put here.';

-- Drops the partition of one day, whole, so that it costs the same however many rows it has. Rows with a label, and what
-- is predicted of them, move to the default partition, each with its own ingest_xid, so that no claim sees them as new.
-- Outcomes: dropped; unscored: a detector with a champion has rows of it to score; labelled: so many rows have labels
-- that moving them would hold up everybody, and little would be gained; missing: there is no such partition.
create function millrace.drop_partition(parent text, day date, at_most bigint, out outcome text, out kept bigint)
language plpgsql as $$
declare
    child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    lower_bound timestamptz := day::timestamp at time zone 'UTC';
    upper_bound timestamptz := (day + 1)::timestamp at time zone 'UTC';
    unseen boolean;
    claims record;
begin
    kept := 0;
    -- Once before the lock, which is not worth taking for nothing, and once under it, when nobody can add a row.
    for look in 1..2 loop
        if look = 2 then
            execute format('lock table only millrace.%I in access exclusive mode', parent);
        end if;
        if not exists (
            select from pg_inherits as i join pg_class as c on c.oid = i.inhrelid
            where i.inhparent = format('millrace.%I', parent)::regclass and c.relname = child
        ) then
            outcome := 'missing';
            return;
        end if;
        if exists (
            select from millrace.scoring_shards as s
            join millrace.scoring_runs as r using (run_id)
            where r.state = 'open' and s.finished_at is null and s.ranges && tstzrange(lower_bound, upper_bound)
        ) then
            outcome := 'unscored';
            return;
        end if;
        if parent = 'logs' then
            for claims in
                select
                    (
                        select r.snapshot from millrace.scoring_runs as r
                        where r.detector_id = m.detector_id and r.kind = 'new_rows' order by r.run_id desc limit 1
                    ) as last
                from millrace.model_registry as m
                join millrace.detectors as d using (detector_id)
                where m.status = 'champion' and d.source = 'logs'
            loop
                execute format(
                    'select exists (select from millrace.%I where $1 is null'
                    ' or ingest_xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(ingest_xid, $1))', child
                ) into unseen using claims.last;
                if unseen then
                    outcome := 'unscored';
                    return;
                end if;
            end loop;
        end if;
        if (
            select count(distinct (ts, row_id)) from millrace.labels
            where subject = 'logs' and ts >= lower_bound and ts < upper_bound
        ) > at_most then
            outcome := 'labelled';
            return;
        end if;
    end loop;
    execute format('alter table millrace.%I detach partition millrace.%I', parent, child);
    execute format(
        'insert into millrace.%I select t.* from millrace.%I as t where exists (select from millrace.labels as l'
        ' where l.subject = ''logs'' and l.ts = t.ts and l.row_id = t.log_id)',
        parent || '_default', child
    );
    get diagnostics kept = row_count;
    execute format('drop table millrace.%I', child);
    update millrace.retention as r
    set dropped_before = greatest(r.dropped_before, day + 1)
    where r.parent = drop_partition.parent;
    outcome := 'dropped';
end
$$;
comment on function millrace.drop_partition is 'Drops one day (UTC) of a table but for the rows with labels, unless something in it is still to be scored.';

create function millrace.is_kept(parent text, ts timestamptz, log_id bigint) returns boolean
language sql stable as $$
    select coalesce(
            ts < (select r.dropped_before::timestamp at time zone 'UTC' from millrace.retention as r where r.parent = is_kept.parent),
            false
        )
        and exists (
            select from millrace.labels as l where l.subject = 'logs' and l.ts = is_kept.ts and l.row_id = is_kept.log_id
        )
$$;
comment on function millrace.is_kept is 'Whether a row lies in the default partition for good, because it has a label and its day was dropped.';

create table millrace.database_identity (
    epoch integer generated always as identity primary key,
    system_identifier bigint,
    recorded_at timestamptz not null default now(),
    advanced bigint not null default 0
);
comment on table millrace.database_identity is 'Grain: one cluster that this database has lived in; the last one is the present.';
comment on column millrace.database_identity.epoch is 'Number of the cluster, from 1.';
comment on column millrace.database_identity.system_identifier is 'What PostgreSQL calls the cluster; null where it does not say.';
comment on column millrace.database_identity.recorded_at is 'When the database was migrated or adopted there.';
comment on column millrace.database_identity.advanced is 'Transaction ids that were passed over, because rows and claims from the cluster before had them.';

create function millrace.system_identifier() returns bigint
language plpgsql stable as $$
begin
    return (select s.system_identifier from pg_control_system() as s);
exception
    when insufficient_privilege then
        return null;
end
$$;
comment on function millrace.system_identifier is 'What PostgreSQL calls this cluster; null where it does not say.';
insert into millrace.database_identity (system_identifier) values (millrace.system_identifier());

-- A transaction id is used up by a commit; there is no other way to it in a running server.
create procedure millrace.advance_transaction_ids(target bigint, at_most integer)
language plpgsql as $$
begin
    for used in 1..at_most loop
        exit when pg_current_xact_id()::text::bigint >= target;
        commit;
    end loop;
end
$$;
comment on procedure millrace.advance_transaction_ids is 'Uses up transaction ids until the count has reached the target, or so many of them.';
revoke execute on procedure millrace.advance_transaction_ids from public;
