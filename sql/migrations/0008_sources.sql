-- CI/CD runs and network flows beside the log lines: ingested, claimed, scored, labelled and kept as these are.

create table millrace.pipeline_runs (
    ts timestamptz not null,
    row_id bigint not null default nextval('millrace.log_id_seq'),
    ingested_at timestamptz not null default now(),
    ingest_xid xid8 not null default pg_current_xact_id(),
    source text not null default 'sql',
    source_id text,
    provider text,
    repository text,
    branch text,
    workflow text,
    language text,
    duration_s double precision check (duration_s >= 0 and duration_s < 'infinity'),
    log_lines double precision check (log_lines >= 0 and log_lines < 'infinity'),
    log_bytes double precision check (log_bytes >= 0 and log_bytes < 'infinity'),
    step_count double precision check (step_count >= 0 and step_count < 'infinity'),
    failed_step_count double precision check (failed_step_count >= 0 and failed_step_count < 'infinity'),
    error_lines double precision check (error_lines >= 0 and error_lines < 'infinity'),
    warning_lines double precision check (warning_lines >= 0 and warning_lines < 'infinity'),
    retry_count double precision check (retry_count >= 0 and retry_count < 'infinity'),
    distinct_commands double precision check (distinct_commands >= 0 and distinct_commands < 'infinity'),
    dependency_installs double precision check (dependency_installs >= 0 and dependency_installs < 'infinity'),
    distinct_network_hosts double precision check (distinct_network_hosts >= 0 and distinct_network_hosts < 'infinity'),
    remote_script_executions double precision
    check (remote_script_executions >= 0 and remote_script_executions < 'infinity'),
    privilege_changes double precision check (privilege_changes >= 0 and privilege_changes < 'infinity'),
    secret_like_tokens double precision check (secret_like_tokens >= 0 and secret_like_tokens < 'infinity'),
    environment_dumps double precision check (environment_dumps >= 0 and environment_dumps < 'infinity'),
    image_pulls double precision check (image_pulls >= 0 and image_pulls < 'infinity'),
    test_failures double precision check (test_failures >= 0 and test_failures < 'infinity'),
    hosts text[] check (cardinality(hosts) <= 100),
    evidence jsonb check (octet_length(evidence::text) <= 65536),
    attributes jsonb,
    primary key (ts, row_id),
    -- As in logs: what lies beyond, no program but PostgreSQL can compute with.
    constraint pipeline_runs_ts_range check (ts >= '0001-01-02 00:00+00' and ts < '9999-12-31 00:00+00')
) partition by range (ts);
create index pipeline_runs_ingest_xid on millrace.pipeline_runs (ingest_xid);
create table millrace.pipeline_runs_default partition of millrace.pipeline_runs default;

comment on table millrace.pipeline_runs is 'Grain: one CI/CD run. Partitioned by day of ts. Any program may insert; only ts is required, a feature that is null is not known.';
comment on column millrace.pipeline_runs.ts is 'When the run started.';
comment on column millrace.pipeline_runs.row_id is 'Unique number of the row, given on arrival; no row of another table has it.';
comment on column millrace.pipeline_runs.ingested_at is 'Start of the transaction that inserted the row.';
comment on column millrace.pipeline_runs.ingest_xid is 'Transaction that inserted the row. Scoring claims rows by it; never set it yourself.';
comment on column millrace.pipeline_runs.source is 'Where the row came from: a file''s name, a shipper''s name, or sql.';
comment on column millrace.pipeline_runs.source_id is 'The runs own id within its source, else its line number.';
comment on column millrace.pipeline_runs.provider is 'Who ran it, such as github_actions or travis.';
comment on column millrace.pipeline_runs.repository is 'Repository that it is of.';
comment on column millrace.pipeline_runs.branch is 'Branch or tag.';
comment on column millrace.pipeline_runs.workflow is 'Workflow or job.';
comment on column millrace.pipeline_runs.language is 'Main language of the repository.';
comment on column millrace.pipeline_runs.duration_s is 'How long the run took, in seconds.';
comment on column millrace.pipeline_runs.log_lines is 'Lines of its log.';
comment on column millrace.pipeline_runs.log_bytes is 'Bytes of its log.';
comment on column millrace.pipeline_runs.step_count is 'Steps of the run.';
comment on column millrace.pipeline_runs.failed_step_count is 'Steps that failed.';
comment on column millrace.pipeline_runs.error_lines is 'Lines of the log that tell of an error.';
comment on column millrace.pipeline_runs.warning_lines is 'Lines of the log that warn.';
comment on column millrace.pipeline_runs.retry_count is 'Times that something was tried again.';
comment on column millrace.pipeline_runs.distinct_commands is 'Different commands that it ran.';
comment on column millrace.pipeline_runs.dependency_installs is 'Installations of dependencies.';
comment on column millrace.pipeline_runs.distinct_network_hosts is 'Different hosts that it named in addresses.';
comment on column millrace.pipeline_runs.remote_script_executions is 'Scripts that it fetched and ran at once, such as curl piped to a shell.';
comment on column millrace.pipeline_runs.privilege_changes is 'Uses of sudo, chmod 777, setuid and the like.';
comment on column millrace.pipeline_runs.secret_like_tokens is 'Texts in the log that look like secrets.';
comment on column millrace.pipeline_runs.environment_dumps is 'Times that it printed its whole environment.';
comment on column millrace.pipeline_runs.image_pulls is 'Container images that it pulled.';
comment on column millrace.pipeline_runs.test_failures is 'Tests that failed.';
comment on column millrace.pipeline_runs.hosts is 'The hosts that it named, at most 100 of them.';
comment on column millrace.pipeline_runs.evidence is 'Short excerpts of the log by kind of security issue. Untrusted: escape them wherever they are shown.';
comment on column millrace.pipeline_runs.attributes is 'Whatever else is known of the run, by key.';

create table millrace.network_flows (
    ts timestamptz not null,
    row_id bigint not null default nextval('millrace.log_id_seq'),
    ingested_at timestamptz not null default now(),
    ingest_xid xid8 not null default pg_current_xact_id(),
    dst_port integer check (dst_port between 0 and 65535),
    form text not null check (form in ('nsl_kdd', 'cicflowmeter')),
    source text not null default 'sql',
    source_id text,
    src_ip text,
    dst_ip text,
    protocol text,
    features jsonb not null check (jsonb_typeof(features) = 'object'),
    attributes jsonb,
    primary key (ts, row_id),
    constraint network_flows_ts_range check (ts >= '0001-01-02 00:00+00' and ts < '9999-12-31 00:00+00')
) partition by range (ts);
create index network_flows_ingest_xid on millrace.network_flows (ingest_xid);
create table millrace.network_flows_default partition of millrace.network_flows default;

comment on table millrace.network_flows is 'Grain: one network flow. Partitioned by day of ts. Any program may insert; only ts, form and features are required.';
comment on column millrace.network_flows.ts is 'When the flow started, or, where that is not known, when it came in.';
comment on column millrace.network_flows.row_id is 'Unique number of the row, given on arrival; no row of another table has it.';
comment on column millrace.network_flows.ingested_at is 'Start of the transaction that inserted the row.';
comment on column millrace.network_flows.ingest_xid is 'Transaction that inserted the row. Scoring claims rows by it; never set it yourself.';
comment on column millrace.network_flows.source is 'Where the row came from: a file''s name, a shipper''s name, or sql.';
comment on column millrace.network_flows.source_id is 'The flows own id within its source, else its line number.';
comment on column millrace.network_flows.form is 'What the features are: nsl_kdd, a connection as in the files of NSL-KDD, or cicflowmeter, a flow as CICFlowMeter measures it.';
comment on column millrace.network_flows.src_ip is 'Address that it came from.';
comment on column millrace.network_flows.dst_ip is 'Address that it went to.';
comment on column millrace.network_flows.dst_port is 'Port that it went to.';
comment on column millrace.network_flows.protocol is 'Protocol: tcp, udp, icmp, or its number.';
comment on column millrace.network_flows.features is 'Values by the form''s own column names. One that is missing or null is not known.';
comment on column millrace.network_flows.attributes is 'Whatever else is known of the flow, by key.';

comment on column millrace.ingest_files.rows is 'Lines that became rows of logs, pipeline_runs or network_flows.';
comment on column millrace.labels.row_id is 'Id of the row: log_id of logs, row_id of the other tables.';
comment on column millrace.labels_current.row_id is 'Id of the row: log_id of logs, row_id of the other tables.';

-- Detectors of one table may read rows of different forms.
alter table millrace.detectors
add column form text,
add constraint detectors_form
check (form in ('nsl_kdd', 'cicflowmeter') or form is null),
add constraint detectors_form_of_flows check ((form is not null) = (source = 'network_flows'));
comment on column millrace.detectors.form is 'Form of the rows that it scores, where its table holds several.';

-- Null for most: a row that has an explanation column already pays nothing for two more.
alter table millrace.predictions add column class text, add column confidence real;
alter table millrace.predictions_history add column class text, add column confidence real;
comment on table millrace.predictions is 'Grain: the one current prediction of a detector for a row of its source. Partitioned by day of ts.';
comment on column millrace.predictions.log_id is 'The row: log_id of logs, row_id of the other tables.';
comment on column millrace.predictions.class is 'Which class the row is of, where the detector tells classes apart.';
comment on column millrace.predictions.confidence is 'How sure it is of the class, 0 to 1.';
comment on column millrace.predictions_history.log_id is 'The row: log_id of logs, row_id of the other tables.';
comment on column millrace.predictions_history.class is 'Which class the row is of, where the detector tells classes apart.';
comment on column millrace.predictions_history.confidence is 'How sure it is of the class, 0 to 1.';

alter table millrace.retention drop constraint retention_parent_check;
alter table millrace.retention add constraint retention_parent_check
check (parent in ('logs', 'pipeline_runs', 'network_flows', 'predictions', 'predictions_history'));
insert into millrace.retention (parent) values ('pipeline_runs'), ('network_flows');

-- As before, for every table of rows: a day of predictions stays while a shard of any detector is to be scored in it,
-- a day of rows while one of a detector that reads them is; labels are looked for under the table that they are on.
create or replace function millrace.drop_partition(
    parent text, day date, at_most bigint, out outcome text, out kept bigint
)
language plpgsql as $$
declare
    child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    lower_bound timestamptz := day::timestamp at time zone 'UTC';
    upper_bound timestamptz := (day + 1)::timestamp at time zone 'UTC';
    unseen boolean;
    claims record;
    id text := case when parent in ('pipeline_runs', 'network_flows') then 'row_id' else 'log_id' end;
    subjects text[] := case
        when parent like 'predictions%' then array['logs', 'pipeline_runs', 'network_flows'] else array[parent]
    end;
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
            join millrace.detectors as d using (detector_id)
            where
                r.state = 'open' and s.finished_at is null and s.ranges && tstzrange(lower_bound, upper_bound)
                and d.source = any(subjects)
        ) then
            outcome := 'unscored';
            return;
        end if;
        if parent not like 'predictions%' then
            for claims in
                select
                    d.form,
                    (
                        select r.snapshot from millrace.scoring_runs as r
                        where r.detector_id = m.detector_id and r.kind = 'new_rows' order by r.run_id desc limit 1
                    ) as last
                from millrace.model_registry as m
                join millrace.detectors as d using (detector_id)
                where m.status = 'champion' and d.source = parent
            loop
                execute format(
                    'select exists (select from millrace.%I where ($1 is null'
                    ' or ingest_xid >= pg_snapshot_xmin($1) and not pg_visible_in_snapshot(ingest_xid, $1))'
                    || case when claims.form is null then ')' else ' and form = $2)' end, child
                ) into unseen using claims.last, claims.form;
                if unseen then
                    outcome := 'unscored';
                    return;
                end if;
            end loop;
        end if;
        if (
            select count(distinct (ts, row_id)) from millrace.labels
            where subject = any(subjects) and ts >= lower_bound and ts < upper_bound
        ) > at_most then
            outcome := 'labelled';
            return;
        end if;
    end loop;
    execute format('alter table millrace.%I detach partition millrace.%I', parent, child);
    execute format(
        'insert into millrace.%I select t.* from millrace.%I as t where exists (select from millrace.labels as l'
        ' where l.subject = any($1) and l.ts = t.ts and l.row_id = t.%I)',
        parent || '_default', child, id
    ) using subjects;
    get diagnostics kept = row_count;
    execute format('drop table millrace.%I', child);
    update millrace.retention as r
    set dropped_before = greatest(r.dropped_before, day + 1)
    where r.parent = drop_partition.parent;
    outcome := 'dropped';
end
$$;
create or replace function millrace.is_kept(parent text, ts timestamptz, log_id bigint) returns boolean
language sql stable as $$
    select coalesce(
            ts < (select r.dropped_before::timestamp at time zone 'UTC' from millrace.retention as r where r.parent = is_kept.parent),
            false
        )
        and exists (
            select from millrace.labels as l
            where
                l.subject = any(
                    case
                        when is_kept.parent like 'predictions%' then array['logs', 'pipeline_runs', 'network_flows']
                        else array[is_kept.parent]
                    end
                )
                and l.ts = is_kept.ts and l.row_id = is_kept.log_id
        )
$$;
