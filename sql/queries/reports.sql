-- name: add
-- Keeps the page of one verdict.
insert into millrace.promotion_reports (decision_id, content) values (:decision_id, :content);

-- name: messages
-- The messages of some rows, or what stands for them, cut to what a page shows of them.
select l.source_row_id as log_id, left(source_text(l), :characters) as message
from
    unnest(cast(:ts as timestamptz[]), cast(:log_ids as bigint[])) as wanted (ts, log_id)
join millrace.source_rows as l on wanted.ts = l.ts and wanted.log_id = l.source_row_id;

-- name: latest_decision
-- The last verdict of the gate on a version, or on any version of a detector.
select p.decision_id
from millrace.promotion_decisions as p join millrace.detectors as d using (detector_id)
where
    d.name = :detector and p.kind = 'gate'
    and p.candidate_version = coalesce(cast(:version as integer), p.candidate_version)
order by p.decision_id desc limit 1;

-- name: page
-- The page of one verdict, null where none could be drawn, and which detector it is about.
select d.name as detector, p.candidate_version, r.content
from millrace.promotion_decisions as p
join millrace.detectors as d using (detector_id)
left join millrace.promotion_reports as r using (decision_id)
where p.decision_id = :decision_id;

-- name: list_pages
-- The verdicts that have a page, the latest first.
select
    p.decision_id, d.name as detector, p.candidate_version, p.champion_version, p.verdict, p.candidate_f1,
    p.champion_f1, p.decided_at
from millrace.promotion_reports
join millrace.promotion_decisions as p using (decision_id)
join millrace.detectors as d using (detector_id)
where d.name = any(:detectors)
order by p.decision_id desc
limit :most;

-- name: detectors
-- The detectors that have a page.
select distinct d.name
from millrace.promotion_reports
join millrace.promotion_decisions using (decision_id)
join millrace.detectors as d using (detector_id)
order by d.name;
