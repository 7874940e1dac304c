-- name: search
select * from livedex.search_vector(
  %(embedding)s::vector, k => %(k)s, collection => %(collection)s, filter => %(filter)s, mode => %(mode)s, after => %(after)s,
  per_document => %(per_document)s, rerank => %(rerank)s, since => %(since)s, until => %(until)s,
  timeout => %(timeout)s, query => %(query)s)

-- name: set_timeout
-- For this transaction only.
select set_config('statement_timeout', %(milliseconds)s::text, true)

-- name: status_sources
select s.topic, c.name as collection, s.state, s.reason, p.partition, p.next_offset, p.owner, p.event_time, p.updated_at
  from livedex.source s
  join livedex.collection c using (collection_id)
  left join livedex.source_progress p using (topic)
 order by s.topic, p.partition

-- name: status_collections
select c.name as collection, c.version_mode as versions, g.generation_id as generation, g.model, g.dimension, g.metric,
       (select count(*) from livedex.document d where d.collection_id = c.collection_id and not d.deleted) as documents,
       (select count(*) from livedex.document_chunk m where m.chunking_id = g.chunking_id) as chunks
  from livedex.collection c
  left join livedex.generation g on g.generation_id = c.active_generation
 order by c.name

-- name: status_dead_letters
select reason, count(*) as letters from livedex.dead_letter where state = 'open' group by reason order by reason

-- name: list_sources
select s.topic, c.name as collection, s.state, s.epoch, s.reason,
       (select count(*) from livedex.source_progress p where p.topic = s.topic) as partitions
  from livedex.source s
  join livedex.collection c using (collection_id)
 order by s.topic
