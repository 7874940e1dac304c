-- name: generations
-- The active generation of each collection, with its chunking.
select c.collection_id, c.name as collection, c.version_mode,
       g.generation_id, g.model, g.model_revision, g.encoder, g.dimension, g.metric, g.storage, g.query_prompt, g.document_prompt,
       g.precision, g.probe,
       k.chunking_id, k.parameters, k.max_tokens, k.text_config::text
  from livedex.collection c
  join livedex.generation g on g.generation_id = c.active_generation
  join livedex.chunking k on k.chunking_id = g.chunking_id
 order by c.name

-- name: sources
select topic, collection_id, epoch, state, reason, topic_id::text, partitions from livedex.source order by topic
