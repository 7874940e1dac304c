-- migrate:up
-- Upkeep by one elected worker: vector indexes are built behind the rows, chunks that nothing refers to are collected.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';
-- loads pgvector into this session: only a superuser may attach settings to a function that the server does not know yet
do $$ begin perform '[0]'::vector; end $$;

-- What the upkeep knows of a generation's vector index, and which worker does it.
create table livedex.upkeep (
  generation_id int primary key references livedex.generation on delete cascade,
  worker        text not null,
  problem       text, -- why something that is due cannot be done; null: nothing is in the way
  deleted       bigint not null default 0, -- vectors that were deleted since the index was built
  unmapped      float8, -- share of the vectors that no document has
  recall        float8, -- share of the nearest that the index finds, by the last probe
  first_recall  float8, -- the same by the first probe after the index was built
  built_at      timestamptz
);
grant select, insert, update on livedex.upkeep to livedex_indexer;
grant select on livedex.upkeep to livedex_query;

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
grant select on livedex.vector_indexes to livedex_indexer, livedex_query;

-- Makes the table of a generation's vectors. Its index is built later, behind the rows: row by row it costs ten times as much.
create or replace function livedex.create_embedding_table(wanted int) returns void
language plpgsql set search_path = pg_catalog, livedex, pg_temp as $$
declare
  home constant text := livedex.vector_schema();
  g livedex.generation;
begin
  select * into strict g from livedex.generation where generation_id = wanted;
  execute format('create table livedex.embedding_%s (chunk_key bigint primary key references livedex.chunk on delete cascade, '
                 'embedding %s.%s(%s) not null)', g.generation_id, home, g.storage, g.dimension);
  -- beside the row and not in TOAST: every candidate's vector is read
  execute format('alter table livedex.embedding_%s alter embedding set storage plain, '
                 'set (autovacuum_vacuum_scale_factor = 0.05)', g.generation_id);
  execute format('alter table livedex.embedding_%s owner to livedex_owner', g.generation_id);
  execute format('grant select, insert, delete on livedex.embedding_%s to livedex_indexer', g.generation_id);
  execute format('grant select on livedex.embedding_%s to livedex_query', g.generation_id);
end
$$;

-- Whether searches can use a vector index of the generation: it may not be built yet.
create function livedex.has_index(g livedex.generation) returns boolean
language sql stable set search_path = pg_catalog, livedex, pg_temp
return exists (select from livedex.vector_indexes i
                where i.relation = to_regclass(format('livedex.embedding_%s', g.generation_id)) and i.valid);

/* The k best chunks, one a document unless per_document says more. The index is asked for more and more candidates until k
   rows came; where its scan stops short, where few chunks are eligible, or where there is no index yet, every eligible vector is
   compared. */
create or replace function livedex.search_vector(
  embedding vector, k int default 10, collection text default 'default', filter jsonb default '{}', mode text default 'hybrid',
  after text default null, per_document int default 1, rerank boolean default false, since timestamptz default null,
  until timestamptz default null, on_miss text default 'error', timeout interval default '2 s', query text default null
) returns setof livedex.search_result
language plpgsql volatile parallel unsafe security definer rows 10
set search_path = pg_catalog, livedex, pg_temp
set hnsw.iterative_scan = 'relaxed_order'
set hnsw.ef_search = 100
set plan_cache_mode = force_custom_plan -- what a filter selects differs by orders of magnitude from call to call
as $$
declare
  few constant int := 5000; -- eligible chunks up to which comparing all is faster than the index and loses nothing
  c livedex.collection := livedex.searchable_collection(collection);
  g livedex.generation;
  words tsquery;
  deadline constant timestamptz := clock_timestamp() + timeout;
  dimensions int;
  norm float8;
  candidates int := least(greatest(4 * k * per_document, 50), 20000);
  exact boolean;
  from_vector bigint;
  from_text bigint;
  answer livedex.search_result[];
begin
  perform livedex.check_search(k, filter, mode, per_document, embedding is not null, query, rerank);
  select * into strict g from livedex.generation where generation_id = c.active_generation;
  if mode <> 'text' then
    execute format('select %1$s.vector_dims($1), %1$s.vector_norm($1)', livedex.vector_schema())
       into dimensions, norm using embedding;
    if dimensions <> g.dimension then
      raise exception 'the embedding has % dimensions, collection % has %', dimensions, quote_ident(c.name), g.dimension
        using errcode = '22023', hint = format('embed the text with the model of the collection: %s', g.model);
    elsif g.metric = 'cosine' and norm = 0 then
      raise exception 'the embedding is zero: it has no direction that could be compared' using errcode = '22023';
    end if;
  end if;
  if after is not null and not livedex.wait_for(after, timeout) then
    raise exception 'the event % was not searchable within %', quote_literal(after), timeout
      using errcode = '57014', detail = 'after', hint = 'ask again later, or with a longer timeout';
  end if;
  if mode <> 'vector' and query is not null then
    words := livedex.any_word((select text_config from livedex.chunking where chunking_id = g.chunking_id), query);
  end if;
  exact := mode = 'text' or not livedex.has_index(g) or livedex.at_most(few, c.collection_id, g.chunking_id, filter, since, until);
  loop
    perform set_config('hnsw.ef_search', least(greatest(candidates, 100), 1000)::text, true);
    execute livedex.search_statement(g, mode, exact, words is not null)
       into from_vector, from_text, answer
      using embedding, c.collection_id, g.chunking_id, filter, since, until, candidates, per_document, k, words;
    exit when (exact or from_vector >= k) and cardinality(answer) >= k
           or exact and from_vector < candidates and from_text < candidates;
    if clock_timestamp() > deadline then
      raise exception 'the search took longer than %', timeout using errcode = '57014', hint = 'ask again with a longer timeout';
    end if;
    exact := exact or from_vector < candidates; -- the index scan met its own limits
    candidates := candidates * 2;
  end loop;
  return query select * from unnest(answer);
end
$$;

/* How much of the truth the vector index of a generation finds: the share of the ten nearest, over some of the stored vectors.
   As many are asked for as the budget allows, at least one; null where there is none. Only vectors of some pages are drawn, so
   that the draw costs the same in a large table. */
create function livedex.index_recall(wanted int, queries int, budget interval) returns float8
language plpgsql volatile security definer set search_path = pg_catalog, livedex, pg_temp
set hnsw.ef_search = 100 -- the least that a search takes
set enable_seqscan = off
set jit = off
as $$
declare
  deadline constant timestamptz := clock_timestamp() + budget;
  g livedex.generation;
  rows_of text;
  distance text;
  near text; -- a stored vector
  farthest float8;
  there bigint;
  seen bigint;
  asked bigint := 0;
  found_by_index bigint := 0;
begin
  select * into strict g from livedex.generation where generation_id = wanted;
  rows_of := format('livedex.embedding_%s', g.generation_id);
  distance := format('embedding operator(%1$s.%2$s) $1::%1$s.%3$s', livedex.vector_schema(),
    case g.metric when 'cosine' then '<=>' when 'dot' then '<#>' else '<->' end, g.storage);
  for near in execute format('select embedding::text from %s tablesample system (%s) order by random() limit %s', rows_of,
    least(100, 100.0 * 2000 * current_setting('block_size')::int / greatest(pg_relation_size(rows_of), 1)), queries)
  loop
    -- + 0: no index gives this order, so that every vector is compared
    execute format('select max(d), count(*) from (select (%s) + 0 as d from %s order by 1 limit 10) n', distance, rows_of)
       into farthest, there using near;
    execute format('select count(*) from (select %1$s as d from %2$s order by %1$s limit 10) n where d <= $2', distance, rows_of)
       into seen using near, farthest;
    asked := asked + there;
    found_by_index := found_by_index + least(seen, there);
    exit when clock_timestamp() > deadline;
  end loop;
  return found_by_index::float8 / nullif(asked, 0);
end
$$;
grant execute on function livedex.index_recall to livedex_indexer;

revoke execute on function livedex.has_index, livedex.index_recall from public;
reset role;
