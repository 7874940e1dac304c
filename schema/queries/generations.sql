-- name: fail
-- A generation that cannot be written is written no more; the active one is never given up.
update livedex.generation set state = 'failed', reason = %(reason)s, left_at = clock_timestamp()
 where generation_id = %(generation_id)s and state in ('building', 'kept')

-- name: list
-- Every generation of every collection. `documents`: those that have chunks, and of them those that a generation that is
-- being built has, both without those of livedex canary.
select g.generation_id as generation, c.name as collection, g.state, g.reason, g.model, g.dimension, g.metric, g.storage, g.created_at,
       case g.state when 'building' then (select count(*) from livedex.document_chunk m
         where m.chunking_id = g.chunking_id and m.ordinal = 0)
         - (select count(*) from livedex.document d join livedex.document_chunk m using (doc_key)
             where d.collection_id = c.collection_id and d.document_id ^@ 'livedex-canary/'
               and m.chunking_id = g.chunking_id and m.ordinal = 0) end as built,
       case g.state when 'building' then (select count(*) from livedex.document_chunk m join livedex.generation a using (chunking_id)
         where a.generation_id = c.active_generation and m.ordinal = 0)
         - (select count(*) from livedex.document d join livedex.document_chunk m using (doc_key)
              join livedex.generation a using (chunking_id)
             where d.collection_id = c.collection_id and d.document_id ^@ 'livedex-canary/'
               and a.generation_id = c.active_generation and m.ordinal = 0) end as documents,
       u.ends_at, u.problem, g.state = 'building' and coalesce(u.complete_at = u.left_out, false) as complete,
       (select bool_or(i.valid) from livedex.vector_indexes i
         where i.relation = to_regclass('livedex.embedding_' || g.generation_id)) as index_ready
  from livedex.generation g
  join livedex.collection c using (collection_id)
  left join livedex.upkeep u using (generation_id)
 where g.state <> 'retired'
 order by c.name, g.generation_id

-- name: find
select g.generation_id, g.collection_id, g.chunking_id, g.state, g.reason, g.index_method, c.name as collection,
       c.active_generation, a.chunking_id as active_chunking, coalesce(u.complete_at = u.left_out, false) as complete
  from livedex.generation g
  join livedex.collection c using (collection_id)
  join livedex.generation a on a.generation_id = c.active_generation
  left join livedex.upkeep u on u.generation_id = g.generation_id
 where g.generation_id = %(generation_id)s and g.state <> 'retired'

-- name: without_model
-- The query workers that embed texts for the active generation and cannot do so for this one yet. Names are shown to few.
select distinct coalesce(nullif(a.application_name, ''), 'pid ' || l.pid) as worker
  from livedex.advisory_locks l
  left join pg_stat_get_activity(l.pid) a on true
 where l.form = 2 and l.class = %(presence)s and l.object = %(active_generation)s
   and not exists (select from livedex.advisory_locks o
                    where o.pid = l.pid and o.form = 2 and o.class = %(presence)s and o.object = %(generation_id)s)
 order by worker

-- name: last_kept
-- The generation that was active before.
select g.generation_id
  from livedex.generation g
  join livedex.collection c using (collection_id)
 where c.name = %(collection)s and g.state = 'kept'
 order by g.left_at desc nulls last, g.generation_id desc
 limit 1

-- name: unbuilt
-- Visible documents with chunks, in the order of their keys, that the generation does not have yet; with their lengths in characters.
select d.doc_key, d.content_version, d.title, coalesce(d.markdown, true) as markdown,
       (select sum(k.length) from livedex.document_chunk m join livedex.chunk k using (chunk_key)
         where m.chunking_id = %(active_chunking)s and m.doc_key = d.doc_key)::bigint as length
  from livedex.document d
 where d.collection_id = %(collection_id)s and not d.deleted and d.doc_key > %(after)s
   and exists (select from livedex.document_chunk m where m.chunking_id = %(active_chunking)s and m.doc_key = d.doc_key)
   and not exists (select from livedex.document_chunk m where m.chunking_id = %(chunking_id)s and m.doc_key = d.doc_key)
 order by d.doc_key
 limit %(most)s

-- name: texts
-- What the chunks of documents tile, with the version that it is of.
select d.doc_key, d.content_version, string_agg(k.text, '' order by m.ordinal) as text
  from livedex.document d
  join livedex.document_chunk m on m.doc_key = d.doc_key and m.chunking_id = %(active_chunking)s
  join livedex.chunk k on k.chunk_key = m.chunk_key
 where d.doc_key = any(%(doc_keys)s)
 group by d.doc_key

-- name: lock_unchanged
-- Those of the documents whose content is still what was read, locked in the order in which batches lock them; none when the generation
-- is built no more.
select d.doc_key
  from livedex.document d
  join jsonb_to_recordset(%(documents)s) as i(doc_key bigint, content_version bigint[]) using (doc_key)
 where d.content_version = i.content_version and not d.deleted
   and exists (select from livedex.generation g
                 join livedex.collection c using (collection_id)
                 join livedex.generation a on a.generation_id = c.active_generation
                where g.generation_id = %(generation_id)s and g.state = 'building' and a.chunking_id = %(active_chunking)s)
 order by d.document_id
   for update of d

-- name: extent
select (select count(*) from livedex.document_chunk m where m.chunking_id = %(chunking_id)s and m.ordinal = 0) as built,
       (select count(*) from livedex.document_chunk m where m.chunking_id = %(active_chunking)s and m.ordinal = 0) as documents

-- name: note_end
update livedex.upkeep set ends_at = now() + make_interval(secs => %(seconds)s) where generation_id = %(generation_id)s

-- name: begin_pass
-- How many batches have left it out so far.
insert into livedex.upkeep (generation_id, worker) values (%(generation_id)s, %(worker)s)
on conflict (generation_id) do update set worker = excluded.worker
returning left_out

-- name: end_pass
-- It lacked nothing that batches had left out by then.
update livedex.upkeep set complete_at = %(left_out)s where generation_id = %(generation_id)s

-- name: torn
-- A document whose text is not the same in the two chunkings, or that one of them lacks.
select d.document_id
  from livedex.document d
  left join lateral (select string_agg(k.text, '' order by m.ordinal) as text
                       from livedex.document_chunk m join livedex.chunk k using (chunk_key)
                      where m.doc_key = d.doc_key and m.chunking_id = %(active_chunking)s) a on true
  left join lateral (select string_agg(k.text, '' order by m.ordinal) as text
                       from livedex.document_chunk m join livedex.chunk k using (chunk_key)
                      where m.doc_key = d.doc_key and m.chunking_id = %(chunking_id)s) b on true
 where d.collection_id = %(collection_id)s and not d.deleted and a.text is distinct from b.text
 limit 1

-- name: unembedded
-- How many chunks of the generation's documents have no vector in it.
select count(*)
  from (select distinct m.chunk_key from livedex.document_chunk m where m.chunking_id = %(chunking_id)s) m
 where not exists (select from livedex.{embeddings} e where e.chunk_key = m.chunk_key)

-- name: vectors
-- Counted as far as it matters.
select count(*) from (select from livedex.{embeddings} limit %(most)s) e

-- name: index_ready
select coalesce(bool_or(i.valid), false) from livedex.vector_indexes i where i.relation = to_regclass('livedex.' || %(embeddings)s)

-- name: recall
select hits::float8 / nullif(nearest, 0) from livedex.probe_index(%(generation_id)s, %(queries)s, make_interval(secs => %(seconds)s))

-- name: switch
-- The generation that was active is kept, and written on.
with before as (
  update livedex.generation set state = 'kept', left_at = clock_timestamp()
   where generation_id = (select active_generation from livedex.collection where collection_id = %(collection_id)s)
), now_active as (
  update livedex.generation set state = 'active', left_at = null where generation_id = %(generation_id)s
)
update livedex.collection set active_generation = %(generation_id)s where collection_id = %(collection_id)s

-- name: retire
-- It is written and searched no more from now on; its tables go when nothing is in flight for it.
update livedex.generation set state = 'retired', left_at = clock_timestamp() where generation_id = %(generation_id)s
