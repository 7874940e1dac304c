-- migrate:up
-- What recovery needs to know of a log: which topic it was, how far a rebuild goes, which life of the topic a dead letter is of.
set local role livedex_owner;

alter table livedex.source add column partitions int constraint source_partitions check (partitions > 0);
grant update (partitions) on livedex.source to livedex_indexer;

alter table livedex.source_progress add column rebuild_until bigint;

alter table livedex.dead_letter
  add column epoch int not null default 0,
  add column version bigint[] constraint dead_letter_version check (cardinality(version) = 3),
  drop constraint dead_letter_place_key,
  add constraint dead_letter_place_key unique (topic, epoch, partition, "offset"),
  drop constraint dead_letter_stage,
  add constraint dead_letter_stage check (stage in ('decode', 'embed', 'store'));

create or replace view livedex.documents as
select c.name as collection,
       d.document_id,
       greatest(d.content_version[2], d.metadata_version[2]) as version,
       d.title,
       d.metadata,
       d.event_time,
       d.indexed_at,
       d.topic,
       d.partition,
       d."offset",
       (select l.reason
          from livedex.dead_letter l
          join livedex.source s on s.topic = l.topic and s.collection_id = d.collection_id
         where l.document_id = d.document_id and l.state = 'open'
           and (l.version > d.content_version
                -- a record that does not say its number: then its place tells, where the document's last event stands too
                or l.version is null and l.epoch = s.epoch
                   and l.topic = d.topic and l.partition = d.partition and l."offset" > d."offset")
         order by l.version desc nulls last, l."offset" desc
         limit 1) as pending_reason
  from livedex.document d
  join livedex.collection c using (collection_id)
 where not d.deleted;

-- One step towards the end of a source's rebuild: once every partition is where the log ended at the reset, the documents that
-- only the earlier log had are deleted, at most `most` a call, and the source is live when none is left. How many were deleted.
create function livedex.finish_rebuild(wanted text, most int default 1000) returns bigint
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  s livedex.source;
  gone bigint;
begin
  select * into s from livedex.source where topic = wanted and state = 'rebuilding' for update skip locked;
  if not found or exists (select from livedex.source_progress p where p.topic = wanted and p.next_offset < p.rebuild_until) then
    return 0;
  end if;
  with left_over as (
    select d.doc_key
      from livedex.document d
     where d.collection_id = s.collection_id and d.topic = s.topic and not d.deleted and d.content_version[1] < s.epoch
     order by d.document_id
     limit most
       for update
  ), unmapped as (
    delete from livedex.document_chunk m using left_over o where m.doc_key = o.doc_key
  )
  update livedex.document d
     set deleted = true, title = null, indexed_at = clock_timestamp(),
         metadata = case when d.metadata_version[1] < s.epoch then '{}' else d.metadata end
    from left_over o
   where d.doc_key = o.doc_key;
  get diagnostics gone = row_count;
  if gone < most then
    update livedex.source set state = 'live', reason = null where topic = wanted;
    update livedex.source_progress set rebuild_until = null where topic = wanted;
    update livedex.dead_letter set state = 'discarded' where topic = wanted and epoch < s.epoch and state = 'open';
  end if;
  return gone;
end
$$;
grant execute on function livedex.finish_rebuild to livedex_indexer;
revoke execute on function livedex.finish_rebuild from public;
reset role;
