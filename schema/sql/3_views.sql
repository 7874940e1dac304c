-- What people and programs read (contracts: the columns are fixed).
set local role livedex_owner;

-- Visible documents, without those of livedex canary. `pending_reason`: a newer update of the document than its content is an open
-- dead letter, and this is why.
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
 where not d.deleted and not d.document_id ^@ 'livedex-canary/';

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
  join livedex.document d on d.collection_id = c.collection_id and not d.deleted and not d.document_id ^@ 'livedex-canary/'
  join livedex.document_chunk m on m.chunking_id = g.chunking_id and m.doc_key = d.doc_key
  join livedex.chunk k on k.chunk_key = m.chunk_key
window up_to_here as (partition by c.name, d.document_id order by m.ordinal);

create view livedex.progress as
select topic, partition, next_offset, owner, event_time, updated_at from livedex.source_progress;

create view livedex.dead_letters as
select id, topic, partition, "offset", reason, detail, state, failed_at from livedex.dead_letter;

-- The vector indexes of livedex's tables, also those that are not valid. `own`: livedex gave it its name, or Postgres did in
-- REINDEX CONCURRENTLY.
create view livedex.vector_indexes as
select i.indrelid as relation, x.relname as name, i.indisvalid as valid,
       x.relname ~ format('^%s_hnsw(_cc(new|old)[0-9]*)?$', t.relname) as own
  from pg_index i
  join pg_class x on x.oid = i.indexrelid
  join pg_am a on a.oid = x.relam and a.amname = 'hnsw'
  join pg_class t on t.oid = i.indrelid
 where t.relnamespace = 'livedex'::regnamespace;

grant select on livedex.documents, livedex.chunks, livedex.progress, livedex.dead_letters, livedex.vector_indexes
  to livedex_indexer, livedex_query;
reset role;
