-- name: follow_topic
-- What the topic was when it was first read. The row stays locked until the claim is made, so that a reset is before or after it.
update livedex.source s
   set topic_id = coalesce(s.topic_id, %(topic_id)s::uuid),
       partitions = case c.version_mode when 'source' then %(partitions)s else coalesce(s.partitions, %(partitions)s) end
  from livedex.collection c
 where s.topic = %(topic)s and c.collection_id = s.collection_id
returning s.epoch, s.state, s.reason, s.topic_id::text, s.partitions, c.version_mode

-- name: stop_source
-- Only the source that was judged: a reset meanwhile makes it another one.
update livedex.source set state = 'stopped', reason = %(reason)s
 where topic = %(topic)s and state <> 'stopped' and epoch = %(epoch)s and topic_id is not distinct from %(topic_id)s::uuid

-- name: lock_source
-- First the source, then its progress, as claims and resets do.
select from livedex.source where topic = %(topic)s for update

-- name: stop_claimed_source
update livedex.source s set state = 'stopped', reason = %(reason)s
 where s.topic = %(topic)s
   and exists (select from livedex.source_progress p
                where p.topic = s.topic and p.partition = %(partition)s and p.owner_epoch = %(owner_epoch)s)

-- name: progress
select topic, partition, next_offset from livedex.source_progress

-- name: unowned
-- Partitions that no worker owns which is connected; of a topic that nobody has claimed yet the first one is sure to be there.
select s.topic, coalesce(p.partition, 0)
  from livedex.source s left join livedex.source_progress p on p.topic = s.topic
 where not exists (select from pg_stat_activity a
                    where a.application_name = left(p.owner, 63) and a.datname = current_database())

-- name: finish_rebuild
select livedex.finish_rebuild(%(topic)s)

-- name: claim
-- Takes a partition over: the owner epoch rises, so that the owner before can no longer write. A first claim begins at `start`.
insert into livedex.source_progress as p (topic, partition, next_offset, owner)
values (%(topic)s, %(partition)s, %(start)s, %(owner)s)
on conflict (topic, partition) do update
   set owner_epoch = p.owner_epoch + 1, owner = excluded.owner, updated_at = clock_timestamp()
returning owner_epoch, next_offset

-- name: stored_versions
select document_id, content_version, metadata_version
  from livedex.document
 where collection_id = %(collection_id)s and document_id = any(%(ids)s)

-- name: known_chunks
-- Which digests have a chunk and a vector already.
select c.digest, c.chunk_key
  from livedex.chunk c
  join livedex.{embeddings} e using (chunk_key)
 where c.collection_id = %(collection_id)s and c.digest = any(%(digests)s)

-- name: staging_table
create temporary table if not exists {staging} (digest bytea, context text, text text, embedding {type}) on commit delete rows

-- name: copy_staging
copy {staging} (digest, context, text, embedding) from stdin with (format binary)

-- name: stage_chunks
-- In the order of the full conflict key, so that two workers that stage the same chunks cannot deadlock.
insert into livedex.chunk (collection_id, digest, context, text, tsv)
select %(collection_id)s, s.digest, s.context, s.text, to_tsvector(%(text_config)s::regconfig, s.context || ' ' || s.text)
  from {staging} s
 order by s.digest
on conflict on constraint chunk_digest_key do nothing

-- name: stage_embeddings
-- Row by row by the index (`offset 0` keeps the planner from joining): it knows nothing of the rows of a temporary table, and
-- would read the chunks of the whole collection for one.
insert into livedex.{embeddings} (chunk_key, embedding)
select c.chunk_key, s.embedding
  from {staging} s
 cross join lateral (select chunk_key from livedex.chunk
                      where collection_id = %(collection_id)s and digest = s.digest offset 0) c
 order by c.chunk_key
on conflict (chunk_key) do nothing

-- name: staged_keys
select s.digest, c.chunk_key
  from {staging} s
 cross join lateral (select chunk_key from livedex.chunk
                      where collection_id = %(collection_id)s and digest = s.digest offset 0) c

-- name: hold_staged
-- Chunks that were staged for a batch which takes its time begin their grace anew, once a quarter of the least grace is over. The
-- collector may have chosen one a moment before: then the batch is planned anew.
update livedex.chunk_orphan
   set since = now()
 where chunk_key in (select o.chunk_key from livedex.chunk_orphan o
                      where o.chunk_key = any(%(keys)s::bigint[])
                        and o.since <= now() - (select min(least(c.orphan_grace, make_interval(secs => %(least)s))) / 4
                                                  from livedex.collection c)
                      order by o.chunk_key for update skip locked)

-- name: share_collection
-- Until the transaction ends, no `livedex apply` replaces the generation; see keep_collection.
select pg_advisory_xact_lock_shared(%(key)s, %(collection_id)s)

-- name: move_progress
-- The fence: nothing moves for a worker that lost the partition, for a batch that was applied before, for one that was not made for
-- the active and the kept generations or is made for one that is not live, or while the source is stopped. Gives the generations
-- that are built and left out by the batch.
update livedex.source_progress
   set next_offset = %(next_offset)s, event_time = greatest(event_time, %(event_time)s), updated_at = clock_timestamp()
 where topic = %(topic)s and partition = %(partition)s
   and owner_epoch = %(owner_epoch)s and next_offset = %(expected_offset)s
   and exists (select from livedex.source s where s.topic = %(topic)s and s.state <> 'stopped')
   and exists (select from livedex.collection c
                where c.collection_id = %(collection_id)s and c.active_generation = %(generation_id)s)
   and not exists (select from livedex.generation g
                    where g.collection_id = %(collection_id)s and g.state in ('active', 'kept') and g.generation_id <> all(%(live)s::int[]))
   and cardinality(%(live)s::int[]) = (select count(*) from livedex.generation g
                                        where g.generation_id = any(%(live)s::int[]) and g.state in ('building', 'active', 'kept'))
returning array(select g.generation_id from livedex.generation g
                 where g.collection_id = %(collection_id)s and g.state = 'building' and g.generation_id <> all(%(live)s::int[]))

-- name: lock_documents
-- The state before, locked in the order of the key until the transaction ends.
select document_id, doc_key, deleted, title, metadata
  from livedex.document
 where collection_id = %(collection_id)s and document_id = any(%(ids)s)
 order by document_id
   for update

-- name: apply_documents
-- The fold of core/fold.py in SQL: each part is replaced when its version is newer, a refused document gives no row.
insert into livedex.document as d (collection_id, document_id, content_version, metadata_version, deleted, title, markdown,
                                   metadata, event_time, topic, partition, "offset")
select %(collection_id)s, i.document_id, i.content_version, i.metadata_version, i.deleted, i.title, i.markdown, i.metadata,
       i.event_time, %(topic)s, %(partition)s, i."offset"
  from jsonb_to_recordset(%(documents)s) as i(document_id text, content_version bigint[], metadata_version bigint[],
       deleted boolean, title text, markdown boolean, metadata jsonb, event_time timestamptz, "offset" bigint)
 order by i.document_id
on conflict on constraint document_id_key do update set
       deleted  = case when excluded.content_version > coalesce(d.content_version, '{{}}') then excluded.deleted else d.deleted end,
       title    = case when excluded.content_version > coalesce(d.content_version, '{{}}') then excluded.title else d.title end,
       markdown = case when excluded.content_version > coalesce(d.content_version, '{{}}') then excluded.markdown else d.markdown end,
       metadata = case when excluded.metadata_version > coalesce(d.metadata_version, '{{}}') then excluded.metadata else d.metadata end,
       (event_time, topic, partition, "offset") = (
         select newest.event_time, newest.topic, newest.partition, newest."offset"
           from (values (greatest(excluded.content_version, excluded.metadata_version),
                         excluded.event_time, excluded.topic, excluded.partition, excluded."offset"),
                        (greatest(d.content_version, d.metadata_version), d.event_time, d.topic, d.partition, d."offset"))
                as newest(version, event_time, topic, partition, "offset")
          order by newest.version desc
          limit 1),
       content_version  = greatest(d.content_version, excluded.content_version),
       metadata_version = greatest(d.metadata_version, excluded.metadata_version),
       indexed_at       = clock_timestamp()
 where excluded.content_version > coalesce(d.content_version, '{{}}')
    or excluded.metadata_version > coalesce(d.metadata_version, '{{}}')
returning document_id, doc_key, content_version, metadata_version

-- name: map_chunks
-- Only the places whose chunk differs are written: each is looked up, whatever the planner knows of the map. A foreign key
-- violation: the collector took a chunk meanwhile.
insert into livedex.document_chunk as m (chunking_id, doc_key, ordinal, chunk_key)
select %(chunking_id)s, w.doc_key, w.ordinal, w.chunk_key
  from unnest(%(doc_keys)s::bigint[], %(ordinals)s::int[], %(chunk_keys)s::bigint[]) as w(doc_key, ordinal, chunk_key)
 where w.chunk_key is distinct from (select o.chunk_key from livedex.document_chunk o
                                      where o.chunking_id = %(chunking_id)s and o.doc_key = w.doc_key and o.ordinal = w.ordinal)
 order by w.doc_key, w.ordinal
on conflict (chunking_id, doc_key, ordinal) do update set chunk_key = excluded.chunk_key
returning doc_key

-- name: trim_chunks
-- What is mapped now is no orphan: when it goes again, a new grace begins. Behind the map, whose foreign keys keep the collector
-- away from these chunks, and in the order of the keys: nobody is waited for who waits for this.
with mapped as (
  delete from livedex.chunk_orphan o
   where o.chunk_key in (select chunk_key from livedex.chunk_orphan
                          where chunk_key = any(%(chunk_keys)s::bigint[]) order by chunk_key for update)
)
delete from livedex.document_chunk m
 using unnest(%(doc_keys)s::bigint[], %(counts)s::int[]) as kept(doc_key, count)
 where m.chunking_id = %(chunking_id)s and m.doc_key = kept.doc_key and m.ordinal >= kept.count
returning m.doc_key

-- name: leave_to_builder
-- What these generations have of documents that changed is old: the builder takes them up.
with noted as (
  insert into livedex.upkeep (generation_id, worker, left_out)
  select unnest(%(generations)s::int[]), '', 1
  on conflict (generation_id) do update set left_out = livedex.upkeep.left_out + 1
)
delete from livedex.document_chunk m
 using livedex.generation g
 where g.generation_id = any(%(generations)s) and m.chunking_id = g.chunking_id and m.doc_key = any(%(doc_keys)s)

-- name: add_dead_letter
insert into livedex.dead_letter (topic, partition, "offset", document_id, key, value, headers, timestamp, stage, reason, detail,
                                 epoch, version)
values (%(topic)s, %(partition)s, %(offset)s, %(document_id)s, %(key)s, %(value)s, %(headers)s, %(timestamp)s,
        %(stage)s, %(reason)s, %(detail)s, %(epoch)s, %(version)s)
-- Read again it may be another record: versions from the source keep their epoch when the topic is made anew.
on conflict on constraint dead_letter_place_key do update
   set attempts = livedex.dead_letter.attempts + 1, failed_at = clock_timestamp(), stage = excluded.stage,
       reason = excluded.reason, detail = excluded.detail, document_id = excluded.document_id, key = excluded.key,
       value = excluded.value, headers = excluded.headers, timestamp = excluded.timestamp, version = excluded.version,
       state = case when livedex.dead_letter.state = 'discarded' and livedex.dead_letter.value is not distinct from excluded.value
                    then 'discarded' else 'open' end

-- name: settle_dead_letters
-- Records that could not be indexed at an earlier reading of the log, and were now.
update livedex.dead_letter
   set state = 'replayed'
 where topic = %(topic)s and epoch = %(epoch)s and partition = %(partition)s
   and "offset" >= %(expected_offset)s and "offset" < %(next_offset)s
   and state = 'open' and "offset" <> all(%(rejected)s)

-- name: open_dead_letters
select reason, count(*) as letters from livedex.dead_letter where state = 'open' group by reason
