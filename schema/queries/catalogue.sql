-- name: generations
-- The generations of each collection that has an active one, this first, with their chunkings; those that are in some states.
select c.collection_id, c.name as collection, c.version_mode, c.reranker,
       g.generation_id, g.model, g.model_revision, g.encoder, g.dimension, g.metric, g.storage, g.query_prompt, g.document_prompt,
       g.precision, g.probe, g.state,
       k.chunking_id, k.parameters, k.max_tokens, k.text_config::text
  from livedex.collection c
  join livedex.generation g on g.collection_id = c.collection_id and g.state = any(%(states)s)
  join livedex.chunking k on k.chunking_id = g.chunking_id
 where c.active_generation is not null
 order by c.name, g.generation_id <> c.active_generation, g.generation_id

-- name: sources
select topic, collection_id, epoch, state, reason, topic_id::text, partitions from livedex.source order by topic
