-- Search: one function answers applications, HTTP and the command line.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';
-- loads pgvector into this session: only a superuser may attach settings to a function that the server does not know yet
do $$ begin perform '[0]'::vector; end $$;

-- One row of an answer.
create type livedex.search_result as (
  document_id text, score float8, title text, chunk text, ordinal int, metadata jsonb,
  version bigint, event_time timestamptz, indexed_at timestamptz
);

-- Any word of a question, so that natural sentences find something; ranking prefers texts that have many, close together.
create function livedex.any_word(config regconfig, question text) returns tsquery
language sql immutable parallel safe set search_path = pg_catalog, livedex, pg_temp
return (select string_agg(quote_literal(word), ' | ')::tsquery from unnest(tsvector_to_array(to_tsvector(config, question))) as word);

-- Refuses what no search can mean; raises 22023, or 0A000 for what this version cannot do.
create function livedex.check_search(
  k int, filter jsonb, mode text, per_document int, has_vector boolean, query text, rerank boolean
) returns void
language plpgsql immutable set search_path = pg_catalog, livedex, pg_temp as $$
begin
  if k is null or k not between 1 and 1000 then
    raise exception 'k is %, expected 1 to 1000', coalesce(k::text, 'null') using errcode = '22023';
  elsif per_document is null or per_document not between 1 and 1000 then
    raise exception 'per_document is %, expected 1 to 1000', coalesce(per_document::text, 'null') using errcode = '22023';
  elsif mode is null or mode not in ('hybrid', 'vector', 'text') then
    raise exception 'mode is %, expected hybrid, vector or text', coalesce(quote_literal(mode), 'null') using errcode = '22023';
  elsif filter is null or jsonb_typeof(filter) <> 'object' then
    raise exception 'filter is %, expected a JSON object', coalesce(jsonb_typeof(filter), 'null') using errcode = '22023';
  elsif mode <> 'text' and not has_vector then
    raise exception 'the embedding is null, mode % needs one', mode using errcode = '22023';
  elsif mode = 'text' and query is null or query = '' then
    raise exception 'the query text is empty, mode % needs one', mode using errcode = '22023';
  elsif char_length(query) > 8192 then
    raise exception 'the query text has % characters, at most 8192 are searched for', char_length(query)
      using errcode = '54000', hint = 'ask for less: a model reads some hundred words of it';
  elsif rerank then
    raise exception 'rerank is not available in this version'
      using errcode = '0A000', hint = 'call without rerank => true';
  end if;
end
$$;

/* The statement behind search_vector. $1 vector, $2 collection_id, $3 chunking_id, $4 filter, $5 since, $6 until,
   $7 candidates of each leg, $8 per_document, $9 k, $10 tsquery. It answers the rows with the number of candidates that
   each leg gave, in one snapshot. A leg tests candidates against the map before its limit, so that rows no document has
   (staged ahead, or left by an edit) cannot crowd out visible ones. */
create function livedex.search_statement(g livedex.generation, mode text, exact boolean, with_text boolean) returns text
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  visible constant text := 'not d.deleted and d.collection_id = $2 and d.metadata @> $4 '
    'and ($5::timestamptz is null or d.event_time >= $5) and ($6::timestamptz is null or d.event_time < $6)';
  -- a subquery with a limit is never pulled up into a join, so the index scan below stays an index scan
  mapped constant text := format('(select true from livedex.document_chunk m join livedex.document d using (doc_key) '
    'where m.chunk_key = %%s.chunk_key and m.chunking_id = $3 and %s limit 1)', visible);
  distance constant text := format('e.embedding operator(%1$s.%2$s) $1::%1$s.%3$s(%4$s)', livedex.vector_schema(),
    case g.metric when 'cosine' then '<=>' when 'dot' then '<#>' else '<->' end, g.storage, g.dimension);
  nothing constant text := 'select null::bigint as chunk_key, null::float8 as %s, null::bigint as rank where false';
  near text;
  worded text;
begin
  near := case
    when mode = 'text' then format(nothing, 'distance')
    -- + 0: no index gives this order, so that every vector is compared
    when exact then format('select e.chunk_key, (%s) + 0 as distance from (select distinct m.chunk_key from livedex.document d '
      'join livedex.document_chunk m using (doc_key) where m.chunking_id = $3 and %s) v '
      'join livedex.embedding_%s e using (chunk_key) order by distance, chunk_key limit $7', distance, visible, g.generation_id)
    else format('select e.chunk_key, %s as distance from livedex.embedding_%s e where %s order by %1$s limit $7',
      distance, g.generation_id, format(mapped, 'e'))
  end;
  if mode <> 'text' then
    -- + 0: the index gives its rows only nearly in order, here they are sorted
    near := format('select chunk_key, distance, row_number() over (order by distance + 0, chunk_key) as rank from (%s) n', near);
  end if;
  worded := case
    when not with_text then format(nothing, 'weight')
    else format('select chunk_key, weight, row_number() over (order by weight desc, chunk_key) as rank from ('
      'select c.chunk_key, ts_rank_cd(c.tsv, $10)::float8 as weight from livedex.chunk c '
      'where c.collection_id = $2 and c.tsv @@ $10 and %s order by weight desc, c.chunk_key limit $7) t', format(mapped, 'c'))
  end;
  return format($sql$
    with near as materialized (%s), worded as materialized (%s),
    fused as (select chunk_key, %s as score from near full join worded using (chunk_key)),
    placed as (
      select d.document_id, f.score, d.title, m.ordinal, m.chunk_key, d.metadata,
             greatest(d.content_version[2], d.metadata_version[2]) as version, d.event_time, d.indexed_at,
             row_number() over (partition by d.doc_key order by f.score desc, m.ordinal) as nth
        from fused f
        join livedex.document_chunk m on m.chunk_key = f.chunk_key and m.chunking_id = $3
        join livedex.document d on d.doc_key = m.doc_key
       where %s),
    best as (select * from placed where nth <= $8 order by score desc, document_id, ordinal limit $9)
    select (select count(*) from near), (select count(*) from worded),
           array(select row(b.document_id, b.score, b.title, c.text, b.ordinal, b.metadata, b.version, b.event_time,
                            b.indexed_at)::livedex.search_result
                   from best b join livedex.chunk c using (chunk_key) order by b.score desc, b.document_id, b.ordinal)
    $sql$, near, worded,
    case mode when 'text' then 'weight'
              when 'vector' then case g.metric when 'cosine' then '1 - distance' when 'dot' then '-distance' else '1 / (1 + distance)' end
              else 'coalesce(1.0 / (60 + near.rank), 0)::float8 + coalesce(1.0 / (60 + worded.rank), 0)::float8' end,
    visible);
end
$$;

-- Whether at most so many chunks are eligible. Without a filter the map alone says so, ten times faster.
create function livedex.at_most(
  few int, collection int, chunking int, filter jsonb, since timestamptz, until timestamptz
) returns boolean
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
  eligible bigint;
begin
  if filter = '{}' and since is null and until is null then
    select count(*) into eligible from (select from livedex.document_chunk m where m.chunking_id = chunking limit few + 1) e;
  else
    select count(*) into eligible
      from (select from livedex.document d join livedex.document_chunk m using (doc_key)
             where d.collection_id = collection and m.chunking_id = chunking and not d.deleted and d.metadata @> filter
               and (since is null or d.event_time >= since) and (until is null or d.event_time < until)
             limit few + 1) e;
  end if;
  return eligible <= few;
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
create function livedex.search_vector(
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

revoke execute on all functions in schema livedex from public;
grant execute on function livedex.search_vector, livedex.wait_for to livedex_search, livedex_query, livedex_indexer;
grant execute on function livedex.index_recall to livedex_indexer;
reset role;
