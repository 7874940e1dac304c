-- name: create_collection
insert into livedex.collection (name, version_mode, orphan_grace, reranker)
values (%(name)s, %(version_mode)s, %(orphan_grace)s, %(reranker)s)
returning collection_id

-- name: keep_collection
-- Until the transaction ends, no worker applies a batch to this collection; see share_collection.
select pg_advisory_xact_lock(%(key)s, %(collection_id)s)

-- name: create_chunking
insert into livedex.chunking (collection_id, parameters, max_tokens, text_config)
values (%(collection_id)s, %(parameters)s, %(max_tokens)s, %(text_config)s::regconfig)
returning chunking_id

-- name: create_generation
insert into livedex.generation (collection_id, chunking_id, model, model_revision, encoder, dimension, metric, storage,
                                query_prompt, document_prompt, precision, probe, state)
values (%(collection_id)s, %(chunking_id)s, %(model)s, %(revision)s, %(encoder)s, %(dimension)s, %(metric)s, %(storage)s,
        %(query_prompt)s, %(document_prompt)s, %(precision)s, %(probe)s, %(state)s)
returning generation_id

-- name: create_embeddings
-- The table of its vectors; their index is built behind them.
select livedex.create_embedding_table(%(generation_id)s)

-- name: activate_generation
update livedex.collection set active_generation = %(generation_id)s where collection_id = %(collection_id)s

-- name: create_source
insert into livedex.source (topic, collection_id)
select %(topic)s, collection_id from livedex.collection where name = %(collection)s
