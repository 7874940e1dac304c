-- migrate:up
-- Nobody learns of topics that he may not search, a search waits for events of its own collection, and what no timeout and no vector
-- can mean is refused by name. A generation that is replaced while an event is waited for is not searched any more.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';
-- loads pgvector into this session: only a superuser may attach settings to a function that the server does not know yet
do $$ begin perform '[0]'::vector; end $$;

-- Refuses a timeout that cannot be meant, and one that is over before it begins unless `look`: then once is enough; raises 22023.
create function livedex.check_timeout(timeout interval, look boolean default false) returns void
language plpgsql immutable set search_path = pg_catalog, livedex, pg_temp as $$
begin
  if timeout is null or timeout <= '0 s' and not look or timeout > '24 hours' then
    raise exception 'the timeout is %, expected % at most 24 hours', coalesce(timeout::text, 'null'),
      case when look then 'an interval of' else 'more than 0 and' end using errcode = '22023';
  end if;
end
$$;

/* The place that a token names. Its topic must be one of the collection, or without one, of a collection that the caller may search:
   what others follow is not told, not even that there is nothing. Raises 22023. */
create function livedex.token_place(token text, wanted livedex.collection, out topic text, out partition int, out "offset" bigint)
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  parts constant text[] := regexp_match(token, '^(.+):([0-9]{1,9}):([0-9]{1,18})$');
  follower constant int := (select s.collection_id from livedex.source s where s.topic = parts[1]);
begin
  if parts is null then
    raise exception 'the token % is no topic:partition:offset', coalesce(quote_literal(token), 'null') using errcode = '22023';
  elsif wanted.collection_id is not null and follower is distinct from wanted.collection_id then
    raise exception 'the token % names no topic that the collection % follows', quote_literal(token), quote_ident(wanted.name)
      using errcode = '22023', hint = 'livedex source list names the topics';
  -- index workers read the sources themselves
  elsif follower is null or not (livedex.may_search(follower) or pg_has_role(livedex.caller(), 'livedex_indexer', 'member')) then
    raise exception 'the token % names no topic of a collection that role % may search', quote_literal(token),
        quote_ident(livedex.caller()::text)
      using errcode = '22023', hint = 'livedex source list names the topics, livedex grant lets a role search their collections';
  end if;
  topic := parts[1];
  partition := parts[2];
  "offset" := parts[3];
end
$$;

-- Waits until the event at a place is searchable, or a dead letter; false when the deadline came first.
create function livedex.wait_until(wanted text, part int, place bigint, deadline timestamptz) returns boolean
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  nap float8 := 0.001;
begin
  loop
    if exists (select from livedex.source_progress p where p.topic = wanted and p.partition = part and p.next_offset > place) then
      return true;
    end if;
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
      raise exception 'the event is not searchable in the snapshot of this % transaction', current_setting('transaction_isolation')
        using errcode = '25001', hint = 'wait in a READ COMMITTED transaction, or before this one begins';
    end if;
    if clock_timestamp() >= deadline then
      return false;
    end if;
    perform pg_sleep(least(nap, greatest(extract(epoch from deadline - clock_timestamp()), 0)));
    nap := least(nap * 1.3, 0.02);
  end loop;
end
$$;

-- Waits until the event at `topic:partition:offset` is searchable, or a dead letter; false when the timeout came first.
create or replace function livedex.wait_for(token text, timeout interval default '5 s') returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, livedex, pg_temp as $$
declare
  p record;
begin
  select * into p from livedex.token_place(token, null);
  perform livedex.check_timeout(timeout, look => true);
  return livedex.wait_until(p.topic, p.partition, p."offset", clock_timestamp() + greatest(timeout, '0 s'));
end
$$;

-- The same for a search of a collection, whose topic it must be; raises 57014 when the timeout came first.
create function livedex.wait_after(token text, wanted livedex.collection, timeout interval) returns void
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  p record;
begin
  select * into p from livedex.token_place(token, wanted);
  if not livedex.wait_until(p.topic, p.partition, p."offset", clock_timestamp() + timeout) then
    raise exception 'the event % was not searchable within %', quote_literal(token), timeout
      using errcode = '57014', detail = 'after', hint = 'ask again later, or with a longer timeout';
  end if;
end
$$;

-- Whether an event of a collection is searchable now: query workers wait for it without a connection.
create function livedex.is_searchable(token text, collection text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, livedex, pg_temp as $$
declare
  p record;
begin
  select * into p from livedex.token_place(token, livedex.searchable_collection(collection));
  return livedex.wait_until(p.topic, p.partition, p."offset", clock_timestamp());
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
set plan_cache_mode = force_custom_plan -- what a filter selects differs by orders of magnitude from call to call
set jit = off -- estimates of the index scans are high, and compiling takes longer than they do
as $$
declare
  filtered constant boolean := filter <> '{}' or since is not null or until is not null;
  -- eligible chunks up to which comparing all loses nothing: with a filter it is faster than the index too
  most constant int := case when filtered then 5000 else 2000 end;
  beyond_half constant float8 := 65520; -- what halfvec does not hold
  c livedex.collection := livedex.searchable_collection(collection);
  g livedex.generation; -- of the moment when the event that is waited for is there
  q record; -- the words of the question
  chunks float8; -- about how many there are, of all collections
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
  from_vector bigint;
  from_text bigint;
  answer livedex.search_result[];
begin
  perform livedex.check_search(k, filter, mode, per_document, embedding is not null, query, rerank);
  perform livedex.check_timeout(timeout);
  deadline := clock_timestamp() + timeout;
  if after is not null then
    perform livedex.wait_after(after, c, timeout);
    c := livedex.searchable_collection(collection);
  end if;
  select * into strict g from livedex.generation where generation_id = c.active_generation;
  if mode <> 'text' then
    execute format('select %1$s.vector_dims($1), %1$s.vector_norm($1)', livedex.vector_schema())
       into dimensions, norm using embedding;
    if dimensions <> g.dimension then
      raise exception 'the embedding has % dimensions, collection % has %', dimensions, quote_ident(c.name), g.dimension
        using errcode = '22023', hint = format('embed the text with the model of the collection: %s', g.model);
    elsif g.metric = 'cosine' and norm = 0 then
      raise exception 'the embedding is zero: it has no direction that could be compared' using errcode = '22023';
    elsif g.storage = 'halfvec' and norm >= beyond_half then
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
    select greatest(reltuples, 0) into chunks from pg_class where oid = 'livedex.chunk'::regclass;
  end if;
  if mode = 'text' and q.words is null then
    return;
  end if;
  -- with a filter, each candidate of the index costs several that are passed over
  candidates := least(case when filtered then greatest(3 * k * per_document, 30) else greatest(4 * k * per_document, 50) end, 20000);
  few := (filtered or mode <> 'text')
     and livedex.count_eligible(most, c.collection_id, g.chunking_id, filter, since, until) <= most;
  exact := few or mode = 'text' or not livedex.has_index(g);
  loop
    if q.words is not null then
      select w.wanted, w.complete into wanted, complete
        from livedex.words_within(q.words, q.shares, chunks, case when few then 'infinity' else budget end) w;
    end if;
    perform set_config('hnsw.ef_search', least(greatest(candidates, 100), 1000)::text, true);
    select b.from_vector, b.from_text, b.answer into from_vector, from_text, answer
      from livedex.best_chunks(c, g, livedex.search_statement(g, mode, exact, few, q.words, q.weights), embedding, filter, since, until,
                               candidates, wanted, per_document, k) b;
    exit when (exact or from_vector >= k) and cardinality(answer) >= k
           or exact and from_vector < candidates and from_text < candidates and (complete or mode = 'hybrid');
    if clock_timestamp() > deadline then
      raise exception 'the search took longer than %', timeout using errcode = '57014', hint = 'ask again with a longer timeout';
    end if;
    if mode = 'text' and from_text < candidates then
      budget := budget * 8; -- the rarest words were not enough
    else
      exact := exact or from_vector < candidates; -- the index scan met its own limits
      candidates := candidates * 2;
    end if;
  end loop;
  return query select * from unnest(answer);
end
$$;

-- Refuses what no text can be embedded with; raises 22023 and 54000.
create or replace function livedex.check_question(question text, timeout interval) returns void
language plpgsql immutable set search_path = pg_catalog, livedex, pg_temp as $$
begin
  if question is null or question = '' then
    raise exception 'the query text is %', case when question is null then 'null' else 'empty' end using errcode = '22023';
  elsif char_length(question) > 8192 then
    raise exception 'the query text has % characters, at most 8192 are searched for', char_length(question)
      using errcode = '54000', hint = 'ask for less: a model reads some hundred words of it';
  end if;
  perform livedex.check_timeout(timeout);
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
  c livedex.collection := livedex.searchable_collection(collection);
  deadline timestamptz;
  g livedex.generation;
  answer livedex.embed_answer;
begin
  perform livedex.check_question(query, timeout);
  perform livedex.check_search(k, filter, mode, per_document, true, query, rerank);
  if on_miss is null or on_miss not in ('error', 'text') then
    raise exception 'on_miss is %, expected error or text', coalesce(quote_literal(on_miss), 'null') using errcode = '22023';
  end if;
  deadline := clock_timestamp() + timeout;
  loop
    if mode <> 'text' then
      select * into strict g from livedex.generation where generation_id = c.active_generation;
      answer := livedex.ask_worker(g, query, case mode when 'hybrid' then 1 else 2 end, deadline);
      if answer.failure is not null and on_miss = 'error' then
        raise exception '%', answer.message using errcode = answer.failure, hint = answer.hint;
      end if;
    end if;
    exit when after is null;
    perform livedex.wait_after(after, c, greatest(deadline - clock_timestamp(), '0 s'));
    after := null;
    c := livedex.searchable_collection(collection);
    exit when c.active_generation = g.generation_id; -- else the vector is one of another model
  end loop;
  return query select * from livedex.search_vector(
    answer.embedding, k, collection, filter, case when answer.embedding is null then 'text' else mode end, after, per_document,
    rerank, since, until, on_miss, greatest(deadline - clock_timestamp(), '1 ms'), query);
end
$$;

revoke execute on function livedex.check_timeout, livedex.token_place, livedex.wait_until, livedex.wait_after, livedex.is_searchable
  from public;
grant execute on function livedex.is_searchable to livedex_query;
reset role;
