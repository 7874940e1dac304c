-- migrate:up
-- Where a worker is late, a search by words has time left to look for all of them. What search_vector is asked for is checked like what
-- search is asked for.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';
-- loads pgvector into this session: only a superuser may attach settings to a function that the server does not know yet
do $$ begin perform '[0]'::vector; end $$;

-- Refuses what cannot be done where a text's vector is not to be had; raises 22023.
create function livedex.check_on_miss(on_miss text) returns void
language plpgsql immutable set search_path = pg_catalog, livedex, pg_temp as $$
begin
  if on_miss is null or on_miss not in ('error', 'text') then
    raise exception 'on_miss is %, expected error or text', coalesce(quote_literal(on_miss), 'null') using errcode = '22023';
  end if;
end
$$;

/* The k best chunks, one a document unless per_document says more. The index is asked for more and more candidates until k
   rows came; where its scan stops short, where few chunks are eligible, or where there is no index yet, every eligible vector is
   compared. In mode text more and more of the frequent words are looked up until k rows came. */
create or replace function livedex.search_vector(
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

-- The vector of a text by way of dblink.
create or replace function livedex.ask_by_dblink(home text, g livedex.generation, question text, purpose int, deadline timestamptz)
returns livedex.embed_answer
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  size constant int := octet_length(convert_to(question, 'UTF8'));
  found livedex.wire_answer;
  answer livedex.embed_answer;
begin
  if size > 8192 then
    answer.failure := '54000';
    answer.message := format('the text has %s bytes, at most 8192 can be embedded from SQL', size);
    answer.hint := 'ask over HTTP (POST /v1/search), or embed the text in the application and call livedex.search_vector';
    return answer;
  end if;
  found := livedex.ask_endpoint(home, g, question, purpose, deadline);
  return row(found.content, found.failure, found.message, found.hint)::livedex.embed_answer;
end
$$;

/* Search by a text. Where the text's vector cannot be had, on_miss says what happens: an error, or rows by words alone. The rest
   is search_vector's. */
create or replace function livedex.search(
  query text, k int default 10, collection text default 'default', filter jsonb default '{}', mode text default 'hybrid',
  after text default null, per_document int default 1, rerank boolean default false, since timestamptz default null,
  until timestamptz default null, on_miss text default 'error', timeout interval default '2 s'
) returns setof livedex.search_result
language plpgsql volatile parallel unsafe security definer rows 10 set search_path = pg_catalog, livedex, pg_temp as $$
declare
  chosen constant text := current_setting('livedex.generation', true); -- by an application that keeps vectors
  c livedex.collection := livedex.searchable_collection(collection);
  kept constant interval := case on_miss when 'text' then timeout / 4 else '0 s' end; -- to find rows by words, where the worker is late
  deadline timestamptz;
  g livedex.generation;
  answer livedex.embed_answer;
  found livedex.search_result[];
begin
  perform livedex.check_question(query, timeout);
  perform livedex.check_search(k, filter, mode, per_document, true, query, false);
  if rerank and c.reranker = '' then
    raise exception 'the collection % has no reranker', quote_ident(c.name)
      using errcode = '22023', hint = 'set one in livedex.toml and run livedex apply, or call without rerank => true';
  elsif rerank and livedex.dblink_schema() is null then
    raise exception 'a search cannot be reranked here: passages do not fit into the mailbox'
      using errcode = '0A000', hint = 'set dblink up, or ask livedex serve over HTTP with "rerank": true';
  end if;
  perform livedex.check_on_miss(on_miss);
  deadline := clock_timestamp() + timeout;
  loop
    if mode <> 'text' then
      g := livedex.searched_generation(c);
      answer := livedex.ask_worker(g, query, case mode when 'hybrid' then 1 else 2 end, deadline - kept);
      if answer.failure is not null and on_miss = 'error' then
        raise exception '%', answer.message using errcode = answer.failure, hint = answer.hint;
      end if;
    end if;
    exit when after is null;
    perform livedex.wait_after(after, c, greatest(deadline - clock_timestamp(), '0 s'));
    after := null;
    c := livedex.searchable_collection(collection);
    exit when (livedex.searched_generation(c)).generation_id = g.generation_id; -- else the vector is one of another model
  end loop;
  if answer.embedding is not null then
    perform set_config('livedex.generation', g.generation_id::text, true); -- whatever becomes the active one meanwhile
  end if;
  if rerank is not true then
    return query select * from livedex.search_vector(
      answer.embedding, k, collection, filter, case when answer.embedding is null then 'text' else mode end, after, per_document,
      false, since, until, on_miss, greatest(deadline - clock_timestamp(), '1 ms'), query);
  else
    found := array(select row(r.*)::livedex.search_result from livedex.search_vector(
      answer.embedding, greatest(k, 20), collection, filter,
      case when answer.embedding is null then 'text' else mode end, after, per_document,
      false, since, until, on_miss, greatest(deadline - clock_timestamp(), '1 ms'), query) r);
    if g.generation_id is null then
      g := livedex.searched_generation(c); -- by words alone nothing was embedded
    end if;
    return query select * from unnest(livedex.reranked(g, query, found, deadline)) limit k;
  end if;
  perform set_config('livedex.generation', coalesce(chosen, ''), true);
end
$$;

revoke execute on function livedex.check_on_miss from public;
reset role;
