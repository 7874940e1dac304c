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

-- A word as a tsquery takes it, whatever characters it has.
create function livedex.quoted_word(word text) returns text
language sql immutable parallel safe set search_path = pg_catalog, livedex, pg_temp
return '''' || replace(replace(word, '\', '\\'), '''', '''''') || '''';

-- Takes the frequent words over from the statistics of ANALYZE; how many rows it wrote. Without statistics nothing changes, and shares
-- that changed little stay.
create function livedex.note_frequent_words() returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, livedex, pg_temp as $$
declare
  written bigint;
begin
  with found as (
    select t.word, max(least(t.share, 1))::float8 as share
      from pg_stats s, unnest(s.most_common_elems::text::text[], s.most_common_elem_freqs) t(word, share)
     where s.schemaname = 'livedex' and s.tablename = 'chunk' and s.attname = 'tsv' and t.word is not null and t.share > 0
     group by t.word
  ), gone as (
    delete from livedex.frequent_word f
     where exists (select from found) and not exists (select from found n where n.word = f.word)
    returning 1
  ), put as (
    insert into livedex.frequent_word as f select word, share from found order by word
    on conflict (word) do update set share = excluded.share where excluded.share not between f.share / 1.2 and f.share * 1.2
    returning 1
  )
  select (select count(*) from gone) + (select count(*) from put) into written;
  return written;
end
$$;

-- The words of a question, rarest first: the share of chunks that have each, and what it says that a chunk has it.
create function livedex.question_words(
  config regconfig, question text, out words text[], out shares float8[], out weights float8[]
) language sql stable set search_path = pg_catalog, livedex, pg_temp as $$
  select array_agg(word order by share, word), array_agg(share order by share, word), array_agg(ln(1 + 1 / share) order by share, word)
    from (select word, coalesce(f.share, (select min(share) / 2 from livedex.frequent_word), 0.0001) as share
            from unnest(tsvector_to_array(to_tsvector(config, question))) word left join livedex.frequent_word f using (word)) known
$$;

/* What to look up in the text index: the rarest words, any of them, while about so many chunks have one (`budget`). All matches have
   to be ranked, and frequent words bring most of them and say little. Where even the rarest word is too frequent, chunks that have
   the next ones too are enough at first; a larger budget brings the others. `complete`: no chunk has another word of the question. */
create function livedex.words_within(
  words text[], shares float8[], chunks float8, budget float8, out wanted tsquery, out complete boolean
) language plpgsql immutable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  expected float8 := shares[1] * chunks;
  taken int := 1;
  together constant boolean := expected > budget and budget < chunks;
begin
  if together then
    while taken < cardinality(words) and expected > budget loop
      taken := taken + 1;
      expected := expected * shares[taken];
    end loop;
  else
    while taken < cardinality(words) and expected + shares[taken + 1] * chunks <= budget loop
      taken := taken + 1;
      expected := expected + shares[taken] * chunks;
    end loop;
    taken := case when budget >= chunks then cardinality(words) else taken end;
  end if;
  complete := taken = cardinality(words) and (not together or taken = 1);
  wanted := (select string_agg(livedex.quoted_word(word), case when together then ' & ' else ' | ' end) from unnest(words[:taken]) word)::tsquery;
end
$$;

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
    raise exception 'livedex.search_vector cannot rerank'
      using errcode = '0A000', hint = 'livedex.search can, by way of dblink, and livedex serve over HTTP with "rerank": true';
  end if;
end
$$;

-- Refuses what cannot be done where a text's vector is not to be had; raises 22023.
create function livedex.check_on_miss(on_miss text) returns void
language plpgsql immutable set search_path = pg_catalog, livedex, pg_temp as $$
begin
  if on_miss is null or on_miss not in ('error', 'text') then
    raise exception 'on_miss is %, expected error or text', coalesce(quote_literal(on_miss), 'null') using errcode = '22023';
  end if;
end
$$;

/* How many times as many candidates the index is asked for: signs tell near from far only roughly. With 8 the first ten of 400 in
   50,000 vectors of 384 dimensions had 0.976 of the nearest ten. */
create function livedex.oversampling(storage text) returns int
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
return case storage when 'bit' then 8 else 1 end;

-- The distance of an embedding `e` to $1 by which a generation's vectors are ranked, and by which its index is searched.
create function livedex.distances(g livedex.generation, out exact text, out indexed text)
language sql stable set search_path = pg_catalog, livedex, pg_temp as $$
  select format('e.embedding operator(%1$s.%2$s) %3$s', home, case g.metric when 'cosine' then '<=>' when 'dot' then '<#>' else '<->' end, wanted),
         case g.storage
           when 'bit' then format('%1$s.binary_quantize(e.embedding)::bit(%2$s) operator(%1$s.<~>) %1$s.binary_quantize(%3$s)::bit(%2$s)',
                                  home, g.dimension, wanted) end
    from livedex.vector_schema() home, format('$1::%s.%s(%s)', home, livedex.vector_type(g.storage), g.dimension) wanted
$$;

/* Whether this search finds the documents of livedex canary too, whose ids begin with livedex-canary/: as the setting livedex.canary
   says, which only the canary's own searches switch on. Nobody else's sees them. */
create function livedex.finds_canaries() returns boolean
language sql stable parallel safe set search_path = pg_catalog, pg_temp
return coalesce(current_setting('livedex.canary', true) = 'on', false);

/* The statement that finds and ranks chunks. $1 vector, $2 collection_id, $3 chunking_id, $4 filter, $5 since, $6 until,
   $7 candidates of each leg, $8 tsquery. It answers the number of candidates that each leg gave, and chunk keys with their scores. A
   leg tests candidates against the map before its limit, so that rows no document has (staged ahead, or left by an edit) cannot
   crowd out visible ones. `exact`: all eligible vectors are compared; `few`: words are looked for in the eligible chunks, not in
   the text index. Null words: the mode has no text leg. */
create function livedex.search_statement(
  g livedex.generation, mode text, exact boolean, few boolean, words text[], weights float8[]
) returns text
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  visible constant text := 'not d.deleted and d.collection_id = $2 and d.metadata @> $4 '
    'and ($5::timestamptz is null or d.event_time >= $5) and ($6::timestamptz is null or d.event_time < $6)'
    || case when livedex.finds_canaries() then '' else ' and not d.document_id ^@ ''livedex-canary/''' end;
  /* A subquery with a limit is never pulled up into a join, so the index scan below stays an index scan. Offset 0 and + 0: from the chunk
     to its documents by keys, whatever the planner believes; while nothing was analyzed, it would go through whole indexes for each. */
  mapped constant text := format('(select true from (select m.doc_key from livedex.document_chunk m '
    'where m.chunk_key = %%s.chunk_key and m.chunking_id + 0 = $3 offset 0) m '
    'cross join lateral (select from livedex.document d where d.doc_key = m.doc_key and %s offset 0) d limit 1)', visible);
  distance record; -- of an embedding to the question's
  near text;
  weight text;
  worded text;
begin
  if mode <> 'text' then
    select * into distance from livedex.distances(g);
    near := case
      -- + 0: no index gives this order, so that every vector is compared
      when exact then format('select e.chunk_key, (%s) + 0 as distance from eligible v join livedex.embedding_%s e using (chunk_key) '
        'order by distance, chunk_key limit $7', distance.exact, g.generation_id)
      -- many are found by their signs, and the best of them by their vectors
      when distance.indexed is not null then format('select * from (select e.chunk_key, %s as distance from livedex.embedding_%s e where %s '
        'order by %s limit $7 * %s) s order by distance, chunk_key limit $7',
        distance.exact, g.generation_id, format(mapped, 'e'), distance.indexed, livedex.oversampling(g.storage))
      else format('select e.chunk_key, %s as distance from livedex.embedding_%s e where %s order by %1$s limit $7',
        distance.exact, g.generation_id, format(mapped, 'e'))
    end;
    -- + 0: the index gives its rows only nearly in order, here they are sorted
    near := format(case mode when 'vector' then 'near as (%s)' else 'near as materialized (select chunk_key, row_number() over '
      '(order by distance + 0, chunk_key) as rank from (%s) n)' end, near);
  end if;
  if words is not null then
    -- the more words, and the rarer, the better, and shorter texts before longer ones; rarest words first, enough of them
    weight := format('(%s) / (1 + length(c.tsv) / 200.0)::float8', (
      select string_agg(format('(c.tsv @@ %L::tsquery)::int * %s::float8', livedex.quoted_word(word), w), ' + ')
        from unnest(words[:32], weights[:32]) t(word, w)));
    worded := case
      when few then format('select c.chunk_key, %s as weight from eligible v join livedex.chunk c using (chunk_key) '
        'where c.tsv @@ $8 order by weight desc, c.chunk_key limit $7', weight)
      -- offset 0: ranked first, so that the map is asked for the best only
      else format('select w.chunk_key, w.weight from (select c.chunk_key, %s as weight from livedex.chunk c '
        'where c.collection_id = $2 and c.tsv @@ $8 order by weight desc, c.chunk_key offset 0) w '
        'where %s order by w.weight desc, w.chunk_key limit $7', weight, format(mapped, 'w'))
    end;
    worded := format(case mode when 'text' then 'worded as (%s)' else 'worded as materialized (select chunk_key, row_number() over '
      '(order by weight desc, chunk_key) as rank from (%s) t)' end, worded);
  end if;
  near := concat_ws(', ', case when exact and near is not null or few and worded is not null
    then format('eligible as materialized (select distinct m.chunk_key from livedex.document d join livedex.document_chunk m using (doc_key) '
                'where m.chunking_id = $3 and %s)', visible) end, near, worded);
  return format('with %s select %s from %s', near, case
    when mode = 'vector' then format('count(*), 0::bigint, array_agg(chunk_key), array_agg(%s)',
      case g.metric when 'cosine' then '1 - distance' when 'dot' then '-distance' else '1 / (1 + distance)' end)
    when mode = 'text' then '0::bigint, count(*), array_agg(chunk_key), array_agg(weight)'
    when words is null then 'count(*), 0::bigint, array_agg(chunk_key), array_agg(1 / (60 + rank)::float8)'
    else 'count(near.rank), count(worded.rank), array_agg(chunk_key), '
         'array_agg(coalesce(1 / (60 + near.rank)::float8, 0) + coalesce(1 / (60 + worded.rank)::float8, 0))'
  end, case when mode = 'text' then 'worded' when words is null then 'near' else 'near full join worded using (chunk_key)' end);
end
$$;

/* One try of search_vector: the k best rows, with the number of candidates that each leg gave. Stable, so that both of its statements
   see one snapshot, of the statement that calls it. The second is the same for every search, so it is planned once a session, when the tables are not small any more. */
create function livedex.best_chunks(
  c livedex.collection, g livedex.generation, statement text, embedding vector, filter jsonb, since timestamptz, until timestamptz,
  candidates int, wanted tsquery, per_document int, k int,
  out from_vector bigint, out from_text bigint, out answer livedex.search_result[]
) language plpgsql stable set search_path = pg_catalog, livedex, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
  large constant bigint := 2^20; -- bytes
  canaries constant boolean := livedex.finds_canaries();
  keys bigint[];
  scores float8[];
begin
  -- a plan that was made for a small table would be kept when it has grown, and takes hours then
  perform set_config('plan_cache_mode', case when pg_relation_size('livedex.document') < large
    or pg_relation_size('livedex.document_chunk') < large or pg_relation_size('livedex.chunk') < large
    then 'force_custom_plan' else 'force_generic_plan' end, true);
  execute statement into from_vector, from_text, keys, scores
    using embedding, c.collection_id, g.chunking_id, filter, since, until, candidates, wanted;
  answer := array(
    with placed as (
      select d.document_id, f.score, d.title, m.ordinal, m.chunk_key, d.metadata,
             greatest(d.content_version[2], d.metadata_version[2]) as version, d.event_time, d.indexed_at,
             row_number() over (partition by d.doc_key order by f.score desc, m.ordinal) as nth
        from unnest(keys, scores) f(chunk_key, score)
       cross join lateral (select m.doc_key, m.ordinal, m.chunk_key from livedex.document_chunk m -- by keys, as in search_statement
                            where m.chunk_key = f.chunk_key and m.chunking_id + 0 = g.chunking_id offset 0) m
       cross join lateral (
         select * from livedex.document d
          where d.doc_key = m.doc_key and not d.deleted and d.collection_id = c.collection_id and d.metadata @> filter
            and (since is null or d.event_time >= since) and (until is null or d.event_time < until)
            and (canaries or not d.document_id ^@ 'livedex-canary/') offset 0) d), -- they may have a chunk in common with others
    best as (select * from placed where nth <= per_document order by score desc, document_id, ordinal limit k)
    select row(b.document_id, b.score, b.title, t.text, b.ordinal, b.metadata, b.version, b.event_time, b.indexed_at)::livedex.search_result
      from best b join livedex.chunk t using (chunk_key) order by b.score desc, b.document_id, b.ordinal);
end
$$;

/* About how many chunks are eligible, no further than a little beyond `few`: documents are counted, and the chunks of some of them.
   Which way a search goes by it costs time at most. Without a filter the map alone says so. */
create function livedex.count_eligible(
  few int, collection int, chunking int, filter jsonb, since timestamptz, until timestamptz
) returns float8
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
  sampled constant int := 200;
  documents bigint;
  theirs bigint;
begin
  if filter = '{}' and since is null and until is null then
    return (select count(*) from (select from livedex.document_chunk m where m.chunking_id = chunking limit few + 1) e);
  end if;
  with eligible as materialized (
    select d.doc_key from livedex.document d
     where d.collection_id = collection and not d.deleted and d.metadata @> filter
       and (since is null or d.event_time >= since) and (until is null or d.event_time < until)
     limit few + 1
  )
  select (select count(*) from eligible),
         (select count(*) from (select doc_key from eligible limit sampled) s join livedex.document_chunk m using (doc_key)
           where m.chunking_id = chunking)
    into documents, theirs;
  return documents::float8 * theirs / greatest(least(documents, sampled), 1);
end
$$;

-- Whether searches can use a vector index of the generation: it may not be built yet. In plpgsql, which keeps the plan.
create function livedex.has_index(g livedex.generation) returns boolean
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
begin
  return exists (select from livedex.vector_indexes i
                  where i.relation = to_regclass(format('livedex.embedding_%s', g.generation_id)) and i.valid);
end
$$;

/* The generation that a search is in: the one that its text was embedded for, where the setting livedex.generation says so, else the
   active one. Raises LX001 when that one is written no more. */
create function livedex.searched_generation(c livedex.collection) returns livedex.generation
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  chosen constant text := current_setting('livedex.generation', true);
  g livedex.generation;
begin
  if chosen ~ '^[0-9]{1,9}$' then
    select * into g from livedex.generation where generation_id = chosen::int and collection_id = c.collection_id;
    if g.state in ('building', 'active', 'kept') then
      return g;
    elsif exists (select from livedex.generation where generation_id = chosen::int and collection_id <> c.collection_id) then
      null; -- it was chosen for another collection
    else
      raise exception 'generation % of collection % is not searched any more', chosen, quote_ident(c.name)
        using errcode = 'LX001', hint = 'ask again: the text is embedded for the active one then';
    end if;
  end if;
  select * into strict g from livedex.generation where generation_id = c.active_generation;
  return g;
end
$$;

/* About how many rows a table has, as the planner takes it: so many pages as there are now, as full as they were when it was analyzed
   last, which may be when there was hardly anything in it. */
create function livedex.about_rows(wanted regclass) returns float8
language sql stable set search_path = pg_catalog, pg_temp
return (select pg_relation_size(oid)::float8 / current_setting('block_size')::int
             * case when reltuples > 0 and relpages > 0 then reltuples / relpages else 10 end
          from pg_class where oid = wanted);

/* The k best chunks, one a document unless per_document says more. The index is asked for more and more candidates until k
   rows came; where its scan stops short, where few chunks are eligible, or where there is no index yet, every eligible vector is
   compared. In mode text more and more of the frequent words are looked up until k rows came. */
create function livedex.search_vector(
  embedding vector, k int default 10, collection text default 'default', filter jsonb default '{}', mode text default 'hybrid',
  after text default null, per_document int default 1, rerank boolean default false, since timestamptz default null,
  until timestamptz default null, on_miss text default 'error', timeout interval default '2 s', query text default null
) returns setof livedex.search_result
language plpgsql volatile parallel unsafe security definer rows 10
set search_path = pg_catalog, livedex, pg_temp
set hnsw.iterative_scan = 'relaxed_order'
set hnsw.ef_search = 100
set jit = off -- estimates of the index scans are high, and compiling takes longer than they do
set random_page_cost = 1.1 -- at the default of 4 a thousand of 100,000 chunks are found by reading all, three to six times as slowly
as $$
declare
  filtered constant boolean := filter <> '{}' or since is not null or until is not null;
  -- eligible chunks up to which comparing all loses nothing: with a filter it is faster than the index too
  most constant int := case when filtered then 5000 else 2000 end;
  most_matches constant float8 := 60000; -- that a hybrid search in a small collection beside large ones looks up
  beyond_half constant float8 := 65520; -- what halfvec does not hold
  c livedex.collection := livedex.searchable_collection(collection);
  g livedex.generation; -- of the moment when the event that is waited for is there
  q record; -- the words of the question
  chunks float8; -- about how many there are, of all collections
  theirs float8; -- and in this one
  budget float8 := 1000; -- matches in the text index: more find hardly more, and each is ranked
  wanted tsquery;
  complete boolean := true; -- wanted has every word of the question
  deadline timestamptz;
  dimensions int;
  norm float8;
  largest float8;
  candidates int; -- of each leg
  few boolean;
  exact boolean;
  scarce boolean; -- the text leg found little by the words that were looked up
  from_vector bigint;
  from_text bigint;
  answer livedex.search_result[];
begin
  perform livedex.check_search(k, filter, mode, per_document, embedding is not null, query, rerank);
  perform livedex.check_on_miss(on_miss);
  perform livedex.check_timeout(timeout);
  deadline := clock_timestamp() + timeout;
  if after is not null then
    perform livedex.wait_after(after, c, timeout);
    c := livedex.searchable_collection(collection);
  end if;
  g := livedex.searched_generation(c);
  if mode <> 'text' then
    execute format('select %1$s.vector_dims($1), %1$s.vector_norm($1)', livedex.vector_schema())
       into dimensions, norm using embedding;
    if dimensions <> g.dimension then
      raise exception 'the embedding has % dimensions, collection % has %', dimensions, quote_ident(c.name), g.dimension
        using errcode = '22023', hint = format('embed the text with the model of the collection: %s', g.model);
    elsif g.metric = 'cosine' and norm = 0 then
      raise exception 'the embedding is zero: it has no direction that could be compared' using errcode = '22023';
    elsif livedex.vector_type(g.storage) = 'halfvec' and norm >= beyond_half then
      largest := (select max(abs(number)) from unnest(embedding::real[]) number);
      if largest >= beyond_half then
        raise exception 'the embedding has the number %, collection % holds numbers below %', largest, quote_ident(c.name), beyond_half
          using errcode = '22023', hint = format('embed the text with the model of the collection: %s', g.model);
      end if;
    end if;
  end if;
  select null::text[] as words, null::float8[] as shares, null::float8[] as weights into q;
  if mode <> 'vector' and query is not null then
    q := livedex.question_words((select text_config from livedex.chunking where chunking_id = g.chunking_id), query);
    chunks := livedex.about_rows('livedex.chunk');
  end if;
  if mode = 'text' and q.words is null then
    return;
  end if;
  -- with a filter, each candidate of the index costs several that are passed over
  candidates := least(case when filtered then greatest(3 * k * per_document, 30) else greatest(4 * k * per_document, 50) end, 20000);
  theirs := coalesce(livedex.about_rows(to_regclass(format('livedex.embedding_%s', g.generation_id))), 0);
  -- where the statistics say that there are many, nobody counts: they may be old, and cost time at most
  few := case when filtered then true when mode = 'text' then false else theirs < 4 * most end
    and livedex.count_eligible(most, c.collection_id, g.chunking_id, filter, since, until) <= most;
  exact := few or mode = 'text' or not livedex.has_index(g);
  loop
    if q.words is not null then
      select w.wanted, w.complete into wanted, complete
        from livedex.words_within(q.words, q.shares, chunks, case when few then 'infinity' else budget end) w;
    end if;
    perform set_config('hnsw.ef_search', least(greatest(candidates * livedex.oversampling(g.storage), 100), 1000)::text, true);
    select b.from_vector, b.from_text, b.answer into from_vector, from_text, answer
      from livedex.best_chunks(c, g, livedex.search_statement(g, mode, exact, few, q.words, q.weights), embedding, filter, since, until,
                               candidates, wanted, per_document, k) b;
    -- where most chunks are those of other collections, the matches may all be theirs, and words be frequent there only
    scarce := mode = 'hybrid' and not complete and from_text < k and theirs between 0 and chunks / 2 and budget < most_matches;
    exit when not scarce and ((exact or from_vector >= k) and cardinality(answer) >= k
           or exact and from_vector < candidates and from_text < candidates and (complete or mode = 'hybrid'));
    if clock_timestamp() > deadline then
      raise exception 'the search took longer than %', timeout using errcode = '57014', hint = 'ask again with a longer timeout';
    end if;
    if scarce or mode = 'text' and from_text < candidates then
      budget := budget * 8; -- the rarest words were not enough
    else
      exact := exact or from_vector < candidates; -- the index scan met its own limits
      candidates := candidates * 2;
    end if;
  end loop;
  return query select * from unnest(answer);
end
$$;

/* How much of the truth the vector index of a generation finds: of the ten nearest of some of the stored vectors. `queries` are
   asked for, or as many as the budget allows, at least one, and told. Only vectors of some pages are drawn, so that the draw
   costs the same in a large table. */
create function livedex.probe_index(wanted int, inout queries int, budget interval, out nearest bigint, out hits bigint)
language plpgsql volatile security definer set search_path = pg_catalog, livedex, pg_temp
set hnsw.ef_search = 100 -- the least that a search takes
set enable_seqscan = off
set jit = off
as $$
declare
  deadline constant timestamptz := clock_timestamp() + budget;
  g livedex.generation;
  rows_of text;
  distance record; -- of an embedding to a stored one
  asked int; -- of the index, as a search asks for ten
  near text; -- a stored vector
  farthest float8;
  there bigint;
  seen bigint;
  most constant int := queries;
begin
  queries := 0;
  nearest := 0;
  hits := 0;
  select * into strict g from livedex.generation where generation_id = wanted;
  rows_of := format('livedex.embedding_%s', g.generation_id);
  asked := case g.storage when 'bit' then 50 * livedex.oversampling(g.storage) else 10 end;
  perform set_config('hnsw.ef_search', greatest(asked, 100)::text, true);
  select * into distance from livedex.distances(g);
  for near in execute format('select embedding::text from %s tablesample system (%s) order by random() limit %s', rows_of,
    least(100, 100.0 * 2000 * current_setting('block_size')::int / greatest(pg_relation_size(rows_of), 1)), most)
  loop
    -- + 0: no index gives this order, so that every vector is compared
    execute format('select max(d), count(*) from (select (%s) + 0 as d from %s e order by 1 limit 10) n', distance.exact, rows_of)
       into farthest, there using near;
    execute format('select count(*) from (select d from (select %1$s as d from %2$s e order by %3$s limit %4$s) s order by d limit 10) n '
                   'where d <= $2', distance.exact, rows_of, coalesce(distance.indexed, distance.exact), asked)
       into seen using near, farthest;
    queries := queries + 1;
    nearest := nearest + there;
    hits := hits + least(seen, there);
    exit when clock_timestamp() > deadline;
  end loop;
end
$$;

-- The same as a share, null where there is nothing: for people, and for workers of an older livedex.
create function livedex.index_recall(wanted int, queries int, budget interval) returns float8
language sql volatile security definer set search_path = pg_catalog, livedex, pg_temp
as $$ select p.hits::float8 / nullif(p.nearest, 0) from livedex.probe_index(wanted, queries, budget) p $$;

revoke execute on all functions in schema livedex from public;
grant execute on function livedex.search_vector, livedex.wait_for to livedex_search, livedex_query, livedex_indexer;
grant execute on function livedex.is_searchable to livedex_query;
grant execute on function livedex.probe_index, livedex.index_recall, livedex.note_frequent_words to livedex_indexer;
reset role;
