-- name: elect
-- One session of all has it, until it ends.
select pg_try_advisory_lock(%(key)s)

-- name: narrow_path
-- What runs as the owner finds nothing that others may have made.
select set_config('search_path', 'pg_catalog, ' || quote_ident(n.nspname) || ', pg_temp', false)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'

-- name: become_owner
set role livedex_owner

-- name: may_become_owner
select pg_has_role('livedex_owner', 'member')

-- name: generations
-- Each generation that is written, with what there is of its vector index. `in_work`: another session builds, rebuilds, drops or
-- vacuums there. That is read off its lock, because progress and activity are shown to few.
select g.generation_id, g.chunking_id, c.collection_id, c.name as collection, g.generation_id = c.active_generation as active,
       -- a generation that is built beside the active one gets its index when it is complete: a load, then one build
       g.state = 'building' and u.complete_at is null as filling,
       extract(epoch from c.orphan_grace)::float8 as grace,
       g.index_method = 'hnsw' as wanted,
       case g.storage
         when 'bit' then '(binary_quantize(embedding)::bit(' || g.dimension || ')) bit_hamming_ops'
         else 'embedding ' || g.storage || '_' || case g.metric when 'dot' then 'ip' else g.metric end || '_ops' end as indexed,
       (select min(i.name::text) from livedex.vector_indexes i where i.relation = t.oid and i.valid) as ready,
       array(select i.name::text from livedex.vector_indexes i where i.relation = t.oid and not i.valid and i.own order by i.name) as left_over,
       exists (select from pg_locks l
                where l.relation = t.oid and l.database = (select oid from pg_database where datname = current_database())
                  and l.mode = 'ShareUpdateExclusiveLock' and l.pid <> pg_backend_pid()) as in_work,
       pg_relation_size(t.oid) / current_setting('block_size')::int as pages, pg_relation_size(t.oid) as bytes,
       (select coalesce(sum(pg_relation_size(('livedex.' || quote_ident(i.name))::regclass)), 0)::bigint
          from livedex.vector_indexes i where i.relation = t.oid) as index_bytes,
       g.dimension, g.storage, pg_stat_get_dead_tuples(t.oid) as dead,
       -- not only by the statistics, which end with a crash, and count twice what is loaded and analyzed at once
       case when t.reltuples > 0 then t.reltuples::bigint else pg_stat_get_live_tuples(t.oid) end as live,
       (select o.option_value::float8 from pg_options_to_table(t.reloptions) o
         where o.option_name = 'autovacuum_vacuum_scale_factor') as vacuum_factor,
       u.unmapped, u.recall, u.first_recall,
       extract(epoch from clock_timestamp() - u.built_at)::float8 as age
  from livedex.collection c
  join livedex.generation g on g.collection_id = c.collection_id and g.state in ('building', 'active', 'kept')
  join pg_class t on t.oid = to_regclass('livedex.embedding_' || g.generation_id)
  left join livedex.upkeep u on u.generation_id = g.generation_id
 order by c.name, g.generation_id

-- name: count_rows
-- As far as it matters.
select count(*) from (select from livedex.{embeddings} limit %(most)s) e

-- name: positions
select s.topic, p.partition, p.next_offset
  from livedex.source s
  left join livedex.source_progress p using (topic)
 where s.collection_id = %(collection_id)s

-- name: build_index
create index concurrently {index} on livedex.{embeddings} using hnsw ({indexed})

-- name: rebuild_index
reindex index concurrently livedex.{index}

-- name: lock_indexes
-- Keeps away who builds, rebuilds, drops or vacuums there, and nobody who reads or writes.
lock table livedex.{embeddings} in share update exclusive mode

-- name: invalid_index
select x.oid::bigint
  from livedex.vector_indexes i
  join pg_class x on x.relname = i.name and x.relnamespace = 'livedex'::regnamespace
 where i.name = %(index)s and i.own and not i.valid

-- name: rename_index
alter index livedex.{index} rename to {aside}

-- name: building
-- As much as it needs, up to what the server has for its buffers, and no less than it gives anyhow: beyond its memory a build
-- becomes several times slower.
select set_config('maintenance_work_mem', greatest(least(%(memory)s::bigint, pg_size_bytes(current_setting('shared_buffers'))),
                                                   pg_size_bytes(current_setting('maintenance_work_mem'))) / 1024 || 'kB', false)

-- name: drop_index
drop index concurrently if exists livedex.{index}

-- name: vacuum
vacuum livedex.{embeddings}

-- name: measure
-- Of a sample of the vectors: how many there are, and how many of them no document has.
select count(*) as vectors,
       count(*) filter (where not exists (select from livedex.document_chunk m
                                           where m.chunk_key = e.chunk_key and m.chunking_id = %(chunking_id)s)) as unmapped
  from livedex.{embeddings} e tablesample system (%(percent)s)

-- name: count_documents
-- Those that searches may give.
select count(*) from livedex.document where collection_id = %(collection_id)s and not deleted and not document_id ^@ 'livedex-canary/'

-- name: built_ratio
-- The share of the documents with chunks that a generation has which is built beside the active one. Those of canaries are left
-- out: they are new all the time, and where there are few others would be most of it.
with canary as (
  select m.chunking_id, count(*) as count
    from livedex.document d
    join livedex.generation g using (collection_id)
    join livedex.document_chunk m using (doc_key)
   where g.generation_id = %(generation_id)s and d.document_id ^@ 'livedex-canary/' and m.ordinal = 0
   group by m.chunking_id
)
select least(1.0, ((select count(*) from livedex.document_chunk m where m.chunking_id = g.chunking_id and m.ordinal = 0)
                   - coalesce((select y.count from canary y where y.chunking_id = g.chunking_id), 0))::float8
       / greatest(1, (select count(*) from livedex.document_chunk m where m.chunking_id = a.chunking_id and m.ordinal = 0)
                     - coalesce((select y.count from canary y where y.chunking_id = a.chunking_id), 0)))
  from livedex.generation g
  join livedex.collection c using (collection_id)
  join livedex.generation a on a.generation_id = c.active_generation
 where g.generation_id = %(generation_id)s

-- name: probe
select queries, nearest, hits from livedex.probe_index(%(generation_id)s, %(queries)s, make_interval(secs => %(budget)s))

-- name: note_worker
insert into livedex.upkeep (generation_id, worker, problem) values (%(generation_id)s, %(worker)s, %(problem)s)
on conflict (generation_id) do update set worker = excluded.worker, problem = excluded.problem

-- name: note_built
update livedex.upkeep
   set deleted = 0, recall = null, first_recall = null, built_at = clock_timestamp(),
       probe_queries = 0, probe_nearest = 0, probe_hits = 0
 where generation_id = %(generation_id)s

-- name: note_unmapped
update livedex.upkeep set unmapped = %(unmapped)s where generation_id = %(generation_id)s

-- name: note_probe
-- Probes are added up until they asked for enough to say a share: of a few queries it is noise.
update livedex.upkeep u
   set recall = coalesce(n.recall, u.recall), first_recall = coalesce(u.first_recall, n.recall),
       probe_queries = case when n.recall is null then n.queries else 0 end,
       probe_nearest = case when n.recall is null then n.nearest else 0 end,
       probe_hits = case when n.recall is null then n.hits else 0 end
  from (select s.*, case when s.queries >= %(least)s then s.hits::float8 / nullif(s.nearest, 0) end as recall
          from (select probe_queries + %(queries)s as queries, probe_nearest + %(nearest)s as nearest,
                       probe_hits + %(hits)s as hits
                  from livedex.upkeep where generation_id = %(generation_id)s) s) n
 where u.generation_id = %(generation_id)s

-- name: end_of_slice
-- The last of the chunks that are looked at next.
select max(s.chunk_key)
  from (select chunk_key from livedex.chunk where chunk_key > %(after)s order by chunk_key limit %(size)s) s

-- name: forget_orphans
-- They are referred to again.
delete from livedex.chunk_orphan o
 where o.chunk_key > %(after)s and o.chunk_key <= %(upto)s
   and exists (select from livedex.document_chunk m where m.chunk_key = o.chunk_key)

-- name: note_orphans
-- Those that are noted already are left out and not left to the conflict, which would wait for the batch that forgets one. To be
-- planned each time: a plan that is kept may be that of the empty table.
insert into livedex.chunk_orphan (chunk_key)
select c.chunk_key
  from livedex.chunk c
 where c.chunk_key > %(after)s and c.chunk_key <= %(upto)s
   and not exists (select from livedex.document_chunk m where m.chunk_key = c.chunk_key)
   and not exists (select from livedex.chunk_orphan o
                    where o.chunk_key = c.chunk_key and o.chunk_key > %(after)s and o.chunk_key <= %(upto)s)
 order by c.chunk_key
on conflict (chunk_key) do nothing

-- name: lock_expired
-- Orphans past the grace. One that a batch refers to at this moment is locked by its foreign key, and left out; one that came to
-- be referred to since `forget_orphans` as well, or it would be found again and again. What only a canary had goes as early as is
-- safe: no text like it comes again, and a day would leave thousands of them beside a few documents of users. A user's orphan that
-- begins with the same word goes as early, and costs an encoding if it comes back.
select c.chunk_key
  from livedex.chunk_orphan o
  join livedex.chunk c on c.chunk_key = o.chunk_key
  join livedex.collection k on k.collection_id = c.collection_id
 where o.chunk_key > %(after)s and o.chunk_key <= %(upto)s and o.since <= now() - case when c.text ^@ 'livedexcanary' then least(k.orphan_grace, make_interval(secs => %(least)s))
                                 else k.orphan_grace end
   and not exists (select from livedex.document_chunk m where m.chunk_key = o.chunk_key)
 order by c.chunk_key
 limit %(most)s
   for update of c skip locked

-- name: lock_oldest
-- The oldest orphans of a collection, whatever is left of their grace; but none that may be staged for a batch in flight.
select c.chunk_key
  from livedex.chunk_orphan o
  join livedex.chunk c on c.chunk_key = o.chunk_key
  join livedex.collection k on k.collection_id = c.collection_id
 where c.collection_id = %(collection_id)s and o.since <= now() - least(k.orphan_grace, make_interval(secs => %(least)s))
   and not exists (select from livedex.document_chunk m where m.chunk_key = o.chunk_key)
 order by o.since, o.chunk_key
 limit %(most)s
   for update of c skip locked

-- name: collect
-- With the chunk go its vectors. What was referred to before it was locked is seen here, and stays.
with gone as (
  delete from livedex.chunk c
   where c.chunk_key = any(%(keys)s)
     and not exists (select from livedex.document_chunk m where m.chunk_key = c.chunk_key)
  returning c.collection_id
), counted as (
  select collection_id, count(*) as chunks from gone group by collection_id
), noted as (
  update livedex.upkeep u
     set deleted = u.deleted + n.chunks
    from counted n join livedex.generation g using (collection_id)
   where u.generation_id = g.generation_id
)
select coalesce(sum(chunks), 0)::bigint from counted

-- name: analyzed
-- When the statistics of the chunks' words were made last.
select greatest(last_analyze, last_autoanalyze) from pg_stat_all_tables where relid = 'livedex.chunk'::regclass

-- name: note_frequent_words
select livedex.note_frequent_words()

-- name: retired
-- Generations that were dropped some time ago, and what those have that failed.
select generation_id, chunking_id, state from livedex.generation
 where (state = 'retired' or state = 'failed' and to_regclass('livedex.embedding_' || generation_id) is not null) and coalesce(left_at, created_at) <= now() - make_interval(secs => %(seconds)s)
 order by generation_id

-- name: unmap
-- Part of the map of a chunking that no generation has any more.
delete from livedex.document_chunk m
 using (select doc_key, ordinal from livedex.document_chunk where chunking_id = %(chunking_id)s limit %(most)s) gone
 where m.chunking_id = %(chunking_id)s and m.doc_key = gone.doc_key and m.ordinal = gone.ordinal

-- name: drop_embeddings
drop table if exists livedex.{embeddings}

-- name: forget_generation
delete from livedex.generation where generation_id = %(generation_id)s and state = 'retired'

-- name: forget_chunking
delete from livedex.chunking where chunking_id = %(chunking_id)s
