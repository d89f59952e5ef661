-- What a version was trained from can be read again, and what a verdict rests on can be looked at.

alter table millrace.model_registry add column snapshot pg_snapshot;
comment on column millrace.model_registry.snapshot is 'Which rows were committed when it was trained, so that it can be trained on the same ones again. Null: trained before this was kept.';

create table millrace.promotion_reports (
    decision_id bigint primary key references millrace.promotion_decisions,
    content text not null,
    created_at timestamptz not null default now()
);
comment on table millrace.promotion_reports is 'Grain: one verdict of the gate, with the page of pictures behind it.';
comment on column millrace.promotion_reports.decision_id is 'The verdict.';
comment on column millrace.promotion_reports.content is 'The page: HTML that needs nothing else.';
comment on column millrace.promotion_reports.created_at is 'When it was drawn.';
