-- migrate:up
-- Where an operator has set up dblink, texts reach the query worker over a connection instead of the mailbox.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

-- The collection of this name, if the caller may search it; raises 42704 and 42501.
create or replace function livedex.searchable_collection(wanted text) returns livedex.collection
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  found_collection livedex.collection;
  asking name := livedex.caller();
begin
  select * into found_collection from livedex.collection c where c.name = wanted;
  if not found then
    raise exception 'the collection % does not exist', quote_ident(wanted)
      using errcode = '42704', hint = 'livedex status lists the collections';
  end if;
  if not (pg_has_role(asking, 'livedex_owner', 'member') or pg_has_role(asking, 'livedex_query', 'member')
          or exists (select from livedex.collection_access a
                       join pg_roles r on r.rolname = a.role -- a role that was dropped would be an error
                      where a.collection_id = found_collection.collection_id and pg_has_role(asking, r.oid, 'member'))) then
    raise exception 'role % may not search the collection %', quote_ident(asking::text), quote_ident(wanted)
      using errcode = '42501', hint = format('an operator can allow it: livedex grant %s %s', wanted, asking);
  end if;
  return found_collection;
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
  exception when sqlstate 'LX001' then
    null; -- the answer is kept: variables are not rolled back
  end;
  if answer.embedding is null then
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
create function livedex.wire_statement(g livedex.generation, question text, purpose int, remaining interval) returns text
language sql stable set search_path = pg_catalog, livedex, pg_temp
return (select format('SELECT embed(%s, %L, %L, %L, %s)', g.generation_id, encode(convert_to(question, 'UTF8'), 'hex'),
                      encode(substr(sha256(s.secret || sha256(s.secret || convert_to('wire', 'UTF8') || int4send(g.generation_id)
                        || set_byte('\x00', 0, purpose) || convert_to(question, 'UTF8'))), 1, 16), 'hex'),
                      (array['embed', 'hybrid', 'vector'])[purpose + 1],
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

-- The vector of a text by way of dblink, in any isolation level, also of a READ ONLY transaction.
create function livedex.ask_by_dblink(home text, g livedex.generation, question text, purpose int, deadline timestamptz)
returns livedex.embed_answer
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp
set client_min_messages = warning -- dblink tells of closed connections by notices
as $$
declare
  link constant text := 'livedex_worker';
  size constant int := octet_length(convert_to(question, 'UTF8'));
  answer livedex.embed_answer;
  vector_text text;
  detail text;
begin
  if size > 8192 then
    answer.failure := '54000';
    answer.message := format('the text has %s bytes, at most 8192 can be embedded from SQL', size);
    answer.hint := 'embed the text in the application and call livedex.search_vector';
    return answer;
  end if;
  for attempt in 1 .. 2 loop
    begin
      vector_text := livedex.dblink_embed(
        home, link, livedex.wire_statement(g, question, purpose, deadline - clock_timestamp() + interval '0.1 s'), deadline);
      exit when vector_text is null;
      answer := null; -- of what the first attempt may have left
      answer.embedding := vector_text;
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
      elsif attempt = 2 or left(answer.failure, 2) <> '08' then -- a connection that was kept may have been closed since
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
  answer.message := 'the query worker did not embed the text in time';
  answer.hint := 'ask again with a longer timeout; livedex doctor says whether the query worker is well';
  return answer;
end
$$;

-- The vector of a text for a generation: from the cache, or from the query worker before the deadline.
create or replace function livedex.ask_worker(g livedex.generation, question text, purpose int, deadline timestamptz) returns livedex.embed_answer
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

revoke execute on function livedex.ask_by_mailbox, livedex.dblink_schema, livedex.wire_statement, livedex.drop_link,
  livedex.dblink_embed, livedex.ask_by_dblink from public;
reset role;
