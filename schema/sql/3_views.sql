-- What people and programs read (contracts: the columns are fixed).
set local role livedex_owner;

-- Visible documents. `pending_reason`: a newer update of the document than its content is an open dead letter, and this is why.
create view livedex.documents as
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

-- The chunks of visible documents; a document's texts in the order of ordinal are its text.
create view livedex.chunks as
select c.name as collection,
       d.document_id,
       m.ordinal,
       k.text,
       (sum(k.length) over up_to_here - k.length)::int as start_char,
       (sum(k.length) over up_to_here)::int as end_char
  from livedex.collection c
  join livedex.generation g on g.generation_id = c.active_generation
  join livedex.document d on d.collection_id = c.collection_id and not d.deleted
  join livedex.document_chunk m on m.chunking_id = g.chunking_id and m.doc_key = d.doc_key
  join livedex.chunk k on k.chunk_key = m.chunk_key
window up_to_here as (partition by c.name, d.document_id order by m.ordinal);

create view livedex.progress as
select topic, partition, next_offset, owner, event_time, updated_at from livedex.source_progress;

create view livedex.dead_letters as
select id, topic, partition, "offset", reason, detail, state, failed_at from livedex.dead_letter;

grant select on livedex.documents, livedex.chunks, livedex.progress, livedex.dead_letters to livedex_indexer, livedex_query;
reset role;
