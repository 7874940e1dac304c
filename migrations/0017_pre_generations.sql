-- migrate:up
-- Generations that are built beside the active one, or kept after it, are written to as well.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';
-- loads pgvector into this session: only a superuser may attach settings to a function that the server does not know yet
do $$ begin perform '[0]'::vector; end $$;


alter table livedex.generation add column reason text;
alter table livedex.generation add column left_at timestamptz;
alter table livedex.upkeep add column ends_at timestamptz;
alter table livedex.upkeep add column left_out bigint not null default 0;
alter table livedex.upkeep add column complete_at bigint;
alter table livedex.generation drop constraint generation_state;
alter table livedex.generation add constraint generation_state check (state in ('building', 'active', 'kept', 'failed', 'retired'));

alter table livedex.document add column markdown boolean;

grant update (state, reason, left_at) on livedex.generation to livedex_indexer;
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
  g := livedex.searched_generation(c);
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
  if answer.embedding is not null then
    perform set_config('livedex.generation', g.generation_id::text, true); -- whatever becomes the active one meanwhile
  end if;
  return query select * from livedex.search_vector(
    answer.embedding, k, collection, filter, case when answer.embedding is null then 'text' else mode end, after, per_document,
    rerank, since, until, on_miss, greatest(deadline - clock_timestamp(), '1 ms'), query);
  perform set_config('livedex.generation', '', true);
end
$$;

revoke execute on function livedex.searched_generation from public;
reset role;
