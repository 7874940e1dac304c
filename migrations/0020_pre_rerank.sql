-- migrate:up
-- livedex.search reranks where the worker is asked by way of dblink.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

-- The answer of a query worker's endpoint as it came, or why there is none, as it would be raised.
create type livedex.wire_answer as (content text, failure text, message text, hint text);

-- Refuses what no search can mean; raises 22023, or 0A000 for what this version cannot do.
create or replace function livedex.check_search(
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

-- The statement by which a worker's endpoint is asked (query/wire_answer.py): the tag says that livedex asks, of this database.
-- Purpose 3 is to rerank, and the question then a JSON object with the query and the passages.
create or replace function livedex.wire_statement(g livedex.generation, question text, purpose int, remaining interval) returns text
language sql stable set search_path = pg_catalog, livedex, pg_temp
return (select format('SELECT %s(%s, %L, %L, %L, %s)', case purpose when 3 then 'rerank' else 'embed' end, g.generation_id,
                      encode(convert_to(question, 'UTF8'), 'hex'),
                      encode(substr(sha256(s.secret || sha256(s.secret || convert_to('wire', 'UTF8') || int4send(g.generation_id)
                        || set_byte('\x00', 0, purpose) || convert_to(question, 'UTF8'))), 1, 16), 'hex'),
                      (array['embed', 'hybrid', 'vector', 'rerank'])[purpose + 1],
                      greatest(1, ceil(1000 * extract(epoch from remaining)))::bigint)
          from livedex.mailbox_secret s);

-- Ask by way of dblink, in any isolation level, also of a READ ONLY transaction.
create function livedex.ask_endpoint(home text, g livedex.generation, question text, purpose int, deadline timestamptz)
returns livedex.wire_answer
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp
set client_min_messages = warning -- dblink tells of closed connections by notices
as $$
declare
  link constant text := 'livedex_worker';
  what constant text := case purpose when 3 then 'rerank the rows' else 'embed the text' end;
  answer livedex.wire_answer;
  content text;
  detail text;
  kept boolean; -- from an earlier text: it may have been closed since
begin
  for attempt in 1 .. 2 loop
    execute format('select $1 = any(coalesce(%I.dblink_get_connections(), ''{}''))', home) into kept using link;
    begin
      content := livedex.dblink_embed(
        home, link, livedex.wire_statement(g, question, purpose, deadline - clock_timestamp() + interval '0.1 s'), deadline);
      exit when content is null;
      answer := null; -- of what the first attempt may have left
      answer.content := content;
      return answer;
    exception when query_canceled or others then
      -- what may still come over it would be taken for the answer to the next text
      perform livedex.drop_link(home, link);
      get stacked diagnostics answer.failure = returned_sqlstate, answer.message = message_text, answer.hint = pg_exception_hint,
        detail = pg_exception_detail;
      exit when answer.failure = '57014' and clock_timestamp() >= deadline;
      if answer.failure = '57014' then
        raise;
      elsif answer.failure in ('57P03', '54000') then
        return answer;
      elsif attempt = 2 or not kept or left(answer.failure, 2) <> '08' then
        raise log 'the query worker was not asked by dblink: % %', answer.message, detail;
        answer.failure := '57P03';
        answer.message := 'the query worker does not answer at the foreign server livedex_worker';
        answer.hint := 'start livedex serve with LIVEDEX_WIRE_PORT; the log of the database server says what failed';
        return answer;
      end if;
    end;
  end loop;
  perform livedex.drop_link(home, link);
  answer.failure := '57014';
  answer.message := format('the query worker did not %s in time', what);
  answer.hint := 'ask again with a longer timeout; livedex doctor says whether the query worker is well';
  return answer;
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
    answer.hint := 'embed the text in the application and call livedex.search_vector';
    return answer;
  end if;
  found := livedex.ask_endpoint(home, g, question, purpose, deadline);
  return row(found.content, found.failure, found.message, found.hint)::livedex.embed_answer;
end
$$;

/* Rows of a search in the order that the collection's cross-encoder gives them, each judged by its title and its passage; at
   least 20 are found for it, and 50 judged at most, as over HTTP (query/searcher.py). Those behind the candidates keep their
   order, with scores below. Where it cannot be asked in time the rows stay as they are, and a warning says why. */
create function livedex.reranked(g livedex.generation, question text, candidates livedex.search_result[], deadline timestamptz)
returns livedex.search_result[]
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  most constant int := 50;
  longest constant int := 2000; -- characters of a passage: a model reads less
  tie constant float8 := 1e-6;
  answer livedex.wire_answer;
  scores float8[];
begin
  if cardinality(candidates) = 0 then
    return candidates;
  elsif clock_timestamp() >= deadline then
    raise warning 'the rows are not reranked: no time is left' using hint = 'ask again with a longer timeout';
    return candidates;
  end if;
  answer := livedex.ask_endpoint(livedex.dblink_schema(), g, (
    select jsonb_build_object('query', question, 'passages',
             jsonb_agg(left(concat_ws(E'\n\n', nullif(r.title, ''), r.chunk), longest) order by r.n))::text
      from unnest(candidates[:most]) with ordinality r(document_id, score, title, chunk, ordinal, metadata, version, event_time, indexed_at, n)
  ), 3, deadline);
  if answer.failure is not null then
    raise warning 'the rows are not reranked: %', answer.message using hint = answer.hint;
    return candidates;
  end if;
  scores := array(select s::float8 from jsonb_array_elements_text(answer.content::jsonb) with ordinality t(s, n) order by n);
  return array(
    select row(r.document_id, coalesce(scores[r.n], lowest - tie * (r.n - most)), r.title, r.chunk, r.ordinal, r.metadata, r.version,
               r.event_time, r.indexed_at)::livedex.search_result
      from unnest(candidates) with ordinality r(document_id, score, title, chunk, ordinal, metadata, version, event_time, indexed_at, n),
           (select min(s) as lowest from unnest(scores) s) l
     order by scores[r.n] desc nulls last, r.n);
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
  perform set_config('livedex.generation', '', true);
end
$$;

revoke execute on function livedex.ask_endpoint, livedex.reranked from public;
reset role;
