-- The tables of livedex (design: the index is the fold of the log, chunks are content-addressed and insert-only).
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

-- The unit of search, access and settings.
create table livedex.collection (
  collection_id       int generated always as identity primary key,
  name                text not null constraint collection_name_key unique
                      constraint collection_name_form check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'),
  version_mode        text not null default 'log' constraint collection_version_mode check (version_mode in ('log', 'source')),
  orphan_grace        interval not null default '24 hours',
  active_generation   int,
  building_generation int,
  created_at          timestamptz not null default now(),
  reranker            text not null default '' -- the cross-encoder that judges candidates where a search asks for it; '': none
);

-- A chunker with its parameters; the digest of a chunk depends on it. Changing any of it makes a new chunking.
create table livedex.chunking (
  chunking_id   int generated always as identity primary key,
  collection_id int not null references livedex.collection on delete cascade,
  parameters    jsonb not null,
  max_tokens    int not null constraint chunking_max_tokens check (max_tokens > 0),
  text_config   regconfig not null
);
create index chunking_collection_idx on livedex.chunking (collection_id);

-- One way of turning documents into chunks and these into vectors. Vectors of different generations never share a table, so they
-- never meet. Every batch is written to all that are live: the active one, which is searched, those that are building, and those
-- that are kept because they were active before, until `left_at`. `reason`: why one failed.
-- `encoder` and `precision` are those that wrote it first. `probe`: the vectors that this encoder gives for a few fixed texts
-- (float32, little-endian), by which another adapter, precision or server shows that it gives the same.
create table livedex.generation (
  generation_id   int generated always as identity primary key,
  collection_id   int not null references livedex.collection on delete cascade,
  chunking_id     int not null references livedex.chunking on delete cascade,
  model           text not null,
  model_revision  text not null,
  encoder         text not null,
  dimension       int not null constraint generation_dimension check (dimension between 1 and 16000),
  metric          text not null default 'cosine' constraint generation_metric check (metric in ('cosine', 'dot', 'l2')),
  storage         text not null default 'halfvec' constraint generation_storage check (storage in ('halfvec', 'vector', 'bit')),
  index_method    text not null default 'hnsw' constraint generation_index_method check (index_method in ('hnsw', 'none')),
  query_prompt    text not null default '',
  document_prompt text not null default '',
  state           text not null default 'active',
  created_at      timestamptz not null default now(),
  precision       text not null default 'f32',
  probe           bytea,
  reason          text,
  left_at         timestamptz,
  constraint generation_state check (state in ('building', 'active', 'kept', 'failed', 'retired'))
);
create index generation_collection_idx on livedex.generation (collection_id);
alter table livedex.collection
  add constraint collection_active_generation_fkey foreign key (active_generation) references livedex.generation,
  add constraint collection_building_generation_fkey foreign key (building_generation) references livedex.generation;

-- The state of a document. Versions are {epoch, number, offset}; null: that part was never seen.
create table livedex.document (
  doc_key          bigint generated always as identity primary key,
  collection_id    int not null references livedex.collection on delete cascade,
  document_id      text not null constraint document_id_length check (char_length(document_id) between 1 and 512),
  content_version  bigint[] constraint document_content_version check (cardinality(content_version) = 3),
  metadata_version bigint[] constraint document_metadata_version check (cardinality(metadata_version) = 3),
  deleted          boolean not null, -- no reader sees the document: its content was deleted, or never seen
  title            text,
  metadata         jsonb not null default '{}',
  event_time       timestamptz not null,
  indexed_at       timestamptz not null default clock_timestamp(),
  topic            text not null, -- where the event with the highest version stands in the log
  partition        int not null,
  "offset"         bigint not null,
  markdown         boolean, -- whether the text is read as Markdown; null: nobody noted it
  constraint document_id_key unique (collection_id, document_id)
) with (fillfactor = 80);
create index document_metadata_idx on livedex.document using gin (metadata jsonb_path_ops) where not deleted;
create index document_event_time_idx on livedex.document (collection_id, event_time) where not deleted;

-- Insert-only. `context` is put before the text for the model and for text search, it is no part of the document's text.
create table livedex.chunk (
  chunk_key     bigint generated always as identity primary key,
  collection_id int not null references livedex.collection on delete cascade,
  digest        bytea not null constraint chunk_digest_length check (octet_length(digest) = 32),
  context       text not null,
  text          text not null,
  length        int not null generated always as (char_length(text)) stored, -- characters
  tsv           tsvector not null,
  constraint chunk_digest_key unique (collection_id, digest)
);
create index chunk_tsv_idx on livedex.chunk using gin (tsv);
alter table livedex.chunk alter tsv set statistics 1000; -- frequencies of up to 10,000 words, not of the first 1,000 only

-- The words that many chunks have, of all collections: the share of chunks that have one, as ANALYZE found it. Without it each word
-- counts the same, and searches for frequent ones are slow. What is not in it is rarer than what is.
create table livedex.frequent_word (
  word  text primary key,
  share float8 not null constraint frequent_word_share check (share > 0 and share <= 1)
);
create index frequent_word_share_idx on livedex.frequent_word (share);

-- Chunks that the collector saw without a reference, and since when.
create table livedex.chunk_orphan (
  chunk_key bigint primary key references livedex.chunk on delete cascade,
  since     timestamptz not null default now()
);
create index chunk_orphan_since_idx on livedex.chunk_orphan (since);

-- The map from documents to chunks: all that search follows, so all that makes a chunk visible.
create table livedex.document_chunk (
  chunking_id int not null references livedex.chunking on delete cascade,
  doc_key     bigint not null references livedex.document on delete cascade,
  ordinal     int not null constraint document_chunk_ordinal check (ordinal >= 0),
  chunk_key   bigint not null constraint document_chunk_chunk_fkey references livedex.chunk,
  primary key (chunking_id, doc_key, ordinal)
);
create index document_chunk_chunk_idx on livedex.document_chunk (chunk_key);
create index document_chunk_doc_idx on livedex.document_chunk (doc_key);

-- A topic that a collection follows. `epoch` is raised when the topic is recreated. `topic_id` and `partitions` are the topic's
-- as it was first read: another topic of the same name, and keys that moved between partitions, are noticed by them.
create table livedex.source (
  topic         text primary key,
  collection_id int not null references livedex.collection on delete cascade,
  epoch         int not null default 0,
  topic_id      uuid,
  state         text not null default 'live' constraint source_state check (state in ('live', 'rebuilding', 'stopped')),
  reason        text,
  partitions    int constraint source_partitions check (partitions > 0)
);
create index source_collection_idx on livedex.source (collection_id);

-- The truth about progress: everything before next_offset is applied. `owner_epoch` fences workers that lost the partition.
-- `rebuild_until` is the log's end at the last reset, while the source is rebuilding.
create table livedex.source_progress (
  topic       text not null references livedex.source on delete cascade,
  partition   int not null,
  next_offset bigint not null,
  owner_epoch bigint not null default 1,
  owner       text not null,
  event_time  timestamptz,
  updated_at  timestamptz not null default clock_timestamp(),
  rebuild_until bigint,
  primary key (topic, partition)
) with (fillfactor = 50);

-- Records that could not be indexed, with their exact bytes. `version` is {epoch, number, offset}, null when the record does not
-- say its number; `epoch` tells the records of a topic from those of its predecessor.
create table livedex.dead_letter (
  id          bigint generated always as identity primary key,
  topic       text not null references livedex.source on delete cascade,
  partition   int not null,
  "offset"    bigint not null,
  document_id text, -- null when the record does not say
  key         bytea,
  value       bytea,
  headers     bytea[] not null default '{}', -- name, value, name, value; a value may be null
  timestamp   timestamptz not null, -- Kafka's
  stage       text not null constraint dead_letter_stage check (stage in ('decode', 'embed', 'store')),
  reason      text not null,
  detail      text not null,
  attempts    int not null default 1,
  state       text not null default 'open' constraint dead_letter_state check (state in ('open', 'replayed', 'discarded')),
  failed_at   timestamptz not null default clock_timestamp(),
  epoch       int not null default 0,
  version     bigint[] constraint dead_letter_version check (cardinality(version) = 3),
  constraint dead_letter_place_key unique (topic, epoch, partition, "offset")
);
create index dead_letter_open_idx on livedex.dead_letter (document_id) where state = 'open';

-- Vectors of query texts by digest, so that a repeated question costs no model run. Texts are not kept.
create table livedex.query_embedding (
  generation_id int not null references livedex.generation on delete cascade,
  digest        bytea not null,
  embedding     vector not null,
  created_at    timestamptz not null default clock_timestamp(),
  primary key (generation_id, digest)
);
create index query_embedding_created_idx on livedex.query_embedding (created_at);

-- Which database role may search which collection. Both its name and its number count: after DROP ROLE the name may be given to
-- another, and after a rename it is not the role that the operator named. The number is written by a trigger.
create table livedex.collection_access (
  collection_id int not null references livedex.collection on delete cascade,
  role          name not null,
  role_oid      oid, -- null: there was no such role
  primary key (collection_id, role)
);

-- What the upkeep knows of a generation's vector index, and which worker does it.
create table livedex.upkeep (
  generation_id int primary key references livedex.generation on delete cascade,
  worker        text not null,
  problem       text, -- why something that is due cannot be done; null: nothing is in the way
  deleted       bigint not null default 0, -- vectors that were deleted since the index was built
  unmapped      float8, -- share of the vectors that no document has
  recall        float8, -- share of the nearest that the index finds, by the last probes
  first_recall  float8, -- the same by the first probes after the index was built
  built_at      timestamptz,
  probe_queries int not null default 0, -- asked for since `recall` was told: so many queries,
  probe_nearest bigint not null default 0, -- which have so many nearest,
  probe_hits    bigint not null default 0, -- of which the index found so many
  ends_at       timestamptz, -- about when a generation that is built will be complete
  left_out      bigint not null default 0, -- so many batches were not written to it, while it is built, but left to the builder
  complete_at   bigint -- how many these were when it had everything last
);

grant select on livedex.collection, livedex.chunking, livedex.generation, livedex.source, livedex.schema_migration
  to livedex_indexer, livedex_query;
grant select, insert, update, delete on livedex.document, livedex.chunk, livedex.chunk_orphan, livedex.document_chunk,
  livedex.source_progress, livedex.dead_letter to livedex_indexer;
grant update (state, reason, topic_id, partitions) on livedex.source to livedex_indexer;
grant update (state, reason, left_at) on livedex.generation to livedex_indexer;
grant select, insert, update on livedex.upkeep to livedex_indexer;
grant select on livedex.document, livedex.document_chunk, livedex.source_progress, livedex.dead_letter, livedex.upkeep
  to livedex_query;
grant select, insert, delete on livedex.query_embedding to livedex_query;
reset role;
