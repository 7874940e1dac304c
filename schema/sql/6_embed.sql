/* Text to vector inside the database. A cached vector is taken; else the query worker is asked. That needs no other extension:
   the text is put into a mailbox of advisory locks, which the worker reads before anything is committed, and its answer is
   waited for in the cache. Where an operator has set dblink up, the worker's endpoint is asked over a connection. */
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

-- What keeps a text in the mailbox from other roles of the database, and their forgeries from the worker. One row.
create table livedex.mailbox_secret (
  secret bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);
create unique index mailbox_secret_single on livedex.mailbox_secret ((true));
insert into livedex.mailbox_secret default values;
grant select on livedex.mailbox_secret to livedex_query;

-- The answer to a text: its vector, or why there is none, as it would be raised.
create type livedex.embed_answer as (embedding vector, failure text, message text, hint text);

-- The answer of a query worker's endpoint as it came, or why there is none, as it would be raised.
create type livedex.wire_answer as (content text, failure text, message text, hint text);

-- The advisory locks of this database that are held.
create view livedex.advisory_locks as
select l.pid, l.classid::bigint as class, l.objid::bigint as object, l.objsubid as form
  from pg_locks l
 where l.locktype = 'advisory' and l.granted and l.database = (select oid from pg_database where datname = current_database());
grant select on livedex.advisory_locks to livedex_query;

/* The keys of the locks that carry a text, as core/mailbox.py reads them: a nonce, the text under a keystream, and a seal that
   only who knows the secret can make, in pieces of 48 bits. No key can be foreseen, so nobody can stand in the way by holding
   it. */
create function livedex.mailbox_keys(secret bytea, payload bytea, nonce bytea, pid int) returns bigint[]
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  piece constant bigint := 94;
  seal constant bigint := 95;
  length constant int := octet_length(payload);
  place constant bytea := int4send(pid) || nonce;
  stream bytea := '';
  tag bytea;
  bits varbit;
begin
  for block in 0 .. (length - 1) / 32 loop
    stream := stream || sha256(secret || convert_to('stream', 'UTF8') || int4send(block) || place);
  end loop;
  tag := sha256(secret || sha256(secret || convert_to('seal', 'UTF8') || place || payload));
  bits := ('x' || encode(nonce, 'hex'))::varbit
    || (('x' || encode(payload, 'hex'))::varbit # ('x' || encode(substr(stream, 1, length), 'hex'))::varbit)
    || ('x' || encode(substr(tag, 1, 12), 'hex'))::varbit;
  return array(
    select (piece << 56) | (i << 48) | rpad(substring(bits from (48 * i + 1)::int for 48)::text, 48, '0')::bit(48)::bigint
      from generate_series(0::bigint, (bit_length(bits) - 1) / 48) i
  ) || ((seal << 56) | (length::bigint << 40) | ('x' || encode(substr(tag, 13, 5), 'hex'))::bit(40)::bigint);
end
$$;

/* Why the mailbox cannot be asked now: SQLSTATE, message and hint, all null when it can. A full lock table fails everybody's
   transactions, so texts are refused before it is, and of one role before they have a quarter of it. */
create function livedex.mailbox_refusal(
  g livedex.generation, question text, out failure text, out message text, out hint text
) language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  presence constant bigint := 1818518897; -- of a query worker, with the generation whose model it has
  most constant int := 64; -- texts of one role at a time
  room constant bigint := current_setting('max_locks_per_transaction')::bigint * current_setting('max_connections')::bigint;
  texts bigint; -- of the role
  own bigint; -- locks of the role's texts
  taken bigint; -- locks of everybody, of whatever sort
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    failure := '25001';
    message := format('the text has no cached vector, and in the snapshot of this %s transaction none can appear',
      current_setting('transaction_isolation'));
    hint := 'search in a READ COMMITTED transaction, call livedex.embed before this one begins, or use livedex.search_vector';
  elsif octet_length(question) > 384 then
    failure := '54000';
    message := format('the text has %s bytes, at most 384 can be embedded from SQL', octet_length(question));
    hint := 'ask over HTTP (POST /v1/search), or embed the text in the application and call livedex.search_vector';
  elsif not exists (
      select from livedex.advisory_locks l, pg_stat_get_activity(l.pid) a
       where l.form = 2 and l.class = presence and l.object = g.generation_id
         and (pg_has_role(a.usesysid, 'livedex_query', 'member') or pg_has_role(a.usesysid, 'livedex_owner', 'member'))) then
    failure := '57P03';
    message := format('no query worker with the model %s is connected to this database', quote_literal(g.model));
    hint := 'start livedex serve; on_miss => ''text'' answers by words meanwhile';
  else
    select count(*) filter (where l.class >> 24 = 95), count(*)
      into texts, own
      from livedex.advisory_locks l, pg_stat_get_activity(l.pid) a, pg_stat_get_activity(pg_backend_pid()) self
     where l.form = 1 and l.class >> 24 in (94, 95) and a.usesysid = self.usesysid;
    select count(*) into taken from pg_locks l where not l.fastpath;
    if texts >= most or own >= room / 4 or taken >= room * 3 / 4 then
      failure := '53400';
      message := case
        when texts >= most then format('the role waits for the vectors of %s texts already, at most %s are allowed', texts, most)
        when own >= room / 4 then format('the texts that the role waits for take %s locks, at most %s are allowed', own, room / 4)
        else format('%s locks are taken in this server, which has room for %s', taken, room) end;
      hint := 'ask again in a moment, with fewer sessions at once';
    end if;
  end if;
end
$$;

-- The vector of a text by way of the mailbox.
create function livedex.ask_by_mailbox(g livedex.generation, question text, purpose int, deadline timestamptz)
returns livedex.embed_answer
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  wanted constant bytea := sha256(convert_to(question, 'UTF8'));
  answer livedex.embed_answer;
  nap float8 := 0.001;
begin
  select r.failure, r.message, r.hint into answer.failure, answer.message, answer.hint from livedex.mailbox_refusal(g, question) r;
  if answer.failure is not null then
    return answer;
  end if;
  begin -- a subtransaction: with its end the locks are free, whatever happens
    perform pg_try_advisory_xact_lock_shared(key)
      from livedex.mailbox_secret s,
           unnest(livedex.mailbox_keys(s.secret, int4send(g.generation_id) || set_byte('\x00', 0, purpose) || convert_to(question, 'UTF8'),
                                       substr(uuid_send(gen_random_uuid()), 1, 12), pg_backend_pid())) as key;
    loop
      select q.embedding into answer.embedding from livedex.query_embedding q
       where q.generation_id = g.generation_id and q.digest = wanted;
      exit when found or clock_timestamp() >= deadline;
      perform pg_sleep(nap);
      nap := least(nap * 1.3, 0.01);
    end loop;
    raise sqlstate 'LX001';
  exception
    when sqlstate 'LX001' then
      null; -- the answer is kept: variables are not rolled back
    when out_of_memory then -- so many came at once that each found room
      answer.failure := '53400';
      answer.message := 'the lock table of the server is full';
      answer.hint := 'ask again in a moment, with fewer sessions at once';
  end;
  if answer.embedding is null and answer.failure is null then
    answer.failure := '57014';
    answer.message := 'the query worker did not embed the text in time';
    answer.hint := 'ask again with a longer timeout; livedex doctor says whether the query worker is well';
  end if;
  return answer;
end
$$;

-- The schema of the extension dblink, where an operator has made the foreign server that leads to a query worker; else null.
create function livedex.dblink_schema() returns text
language sql stable set search_path = pg_catalog, pg_temp
return (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
         where e.extname = 'dblink'
           and exists (select from pg_foreign_server s
                        where s.srvname = 'livedex_worker' and pg_has_role(s.srvowner, 'livedex_owner', 'member')));

-- The statement by which a worker's endpoint is asked (query/wire_answer.py): the tag says that livedex asks, of this database.
-- Purpose 3 is to rerank, and the question then a JSON object with the query and the passages.
create function livedex.wire_statement(g livedex.generation, question text, purpose int, remaining interval) returns text
language sql stable set search_path = pg_catalog, livedex, pg_temp
return (select format('SELECT %s(%s, %L, %L, %L, %s)', case purpose when 3 then 'rerank' else 'embed' end, g.generation_id,
                      encode(convert_to(question, 'UTF8'), 'hex'),
                      encode(substr(sha256(s.secret || sha256(s.secret || convert_to('wire', 'UTF8') || int4send(g.generation_id)
                        || set_byte('\x00', 0, purpose) || convert_to(question, 'UTF8'))), 1, 16), 'hex'),
                      (array['embed', 'hybrid', 'vector', 'rerank'])[purpose + 1],
                      greatest(1, ceil(1000 * extract(epoch from remaining)))::bigint)
          from livedex.mailbox_secret s);

-- Close this session's connection to the worker, if it has one.
create function livedex.drop_link(home text, link text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  execute format('select %1$I.dblink_disconnect(l) from unnest(%1$I.dblink_get_connections()) l where l = $1', home) using link;
end
$$;

/* Ask over a connection that this session keeps, and wait: the vector as text, null at the deadline. What the worker says, and
   what keeps it from being asked, is raised. */
create function livedex.dblink_embed(home text, link text, statement text, deadline timestamptz) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  ready int;
  vector_text text;
  nap float8 := 0.001;
begin
  execute format('select 1 where $1 = any(%I.dblink_get_connections())', home) into ready using link;
  if ready is null then
    execute format('select %I.dblink_connect($1, $2)', home) using link, 'livedex_worker';
  end if;
  execute format('select %I.dblink_send_query($1, $2)', home) into ready using link, statement;
  if ready = 0 then
    raise exception 'the connection is closed' using errcode = '08006';
  end if;
  loop
    execute format('select 1 - %I.dblink_is_busy($1)', home) into ready using link;
    exit when ready = 1;
    if clock_timestamp() >= deadline then
      return null;
    end if;
    perform pg_sleep(nap);
    nap := least(nap * 1.3, 0.01);
  end loop;
  execute format('select v from %I.dblink_get_result($1) as r(v text)', home) into vector_text using link;
  execute format('select v from %I.dblink_get_result($1) as r(v text)', home) using link; -- reads to the end of the answer
  return vector_text;
end
$$;

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
create function livedex.ask_by_dblink(home text, g livedex.generation, question text, purpose int, deadline timestamptz)
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

-- The vector of a text for a generation: from the cache, or from the query worker before the deadline.
create function livedex.ask_worker(g livedex.generation, question text, purpose int, deadline timestamptz) returns livedex.embed_answer
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  home text;
  answer livedex.embed_answer;
begin
  select q.embedding into answer.embedding from livedex.query_embedding q
   where q.generation_id = g.generation_id and q.digest = sha256(convert_to(question, 'UTF8'));
  if found then
    return answer;
  end if;
  home := livedex.dblink_schema();
  if home is null then
    return livedex.ask_by_mailbox(g, question, purpose, deadline);
  end if;
  return livedex.ask_by_dblink(home, g, question, purpose, deadline);
end
$$;

-- Refuses what no text can be embedded with; raises 22023 and 54000.
create function livedex.check_question(question text, timeout interval) returns void
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

-- The number of the generation that a collection is searched in: vectors of different ones do not compare.
create function livedex.active_generation(collection text default 'default') returns int
language sql stable security definer set search_path = pg_catalog, livedex, pg_temp
begin atomic
  select (livedex.searchable_collection(collection)).active_generation;
end;

-- The vector that a collection's model gives for a query text.
create function livedex.embed(query text, collection text default 'default', timeout interval default '2 s') returns vector
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, livedex, pg_temp as $$
declare
  c constant livedex.collection := livedex.searchable_collection(collection);
  g livedex.generation;
  answer livedex.embed_answer;
begin
  perform livedex.check_question(query, timeout);
  g := livedex.searched_generation(c);
  answer := livedex.ask_worker(g, query, 0, clock_timestamp() + timeout);
  if answer.failure is not null then
    raise exception '%', answer.message using errcode = answer.failure, hint = answer.hint;
  end if;
  return answer.embedding;
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
create function livedex.search(
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

revoke execute on function livedex.mailbox_keys, livedex.mailbox_refusal, livedex.ask_by_mailbox, livedex.dblink_schema,
  livedex.wire_statement, livedex.drop_link, livedex.dblink_embed, livedex.ask_endpoint, livedex.ask_by_dblink, livedex.ask_worker,
  livedex.check_question, livedex.active_generation, livedex.reranked, livedex.embed, livedex.search from public;
grant execute on function livedex.active_generation, livedex.embed, livedex.search to livedex_search, livedex_query, livedex_indexer;
reset role;
