-- migrate:up
-- Texts that wait are counted by the locks that they take, against the lock table of the whole server.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

/* Why the mailbox cannot be asked now: SQLSTATE, message and hint, all null when it can. A full lock table fails everybody's
   transactions, so texts are refused before it is, and of one role before they have a quarter of it. */
create or replace function livedex.mailbox_refusal(
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
create or replace function livedex.ask_by_mailbox(g livedex.generation, question text, purpose int, deadline timestamptz)
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

-- The vector of a text by way of dblink, in any isolation level, also of a READ ONLY transaction.
create or replace function livedex.ask_by_dblink(home text, g livedex.generation, question text, purpose int, deadline timestamptz)
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
  kept boolean; -- from an earlier text: it may have been closed since
begin
  if size > 8192 then
    answer.failure := '54000';
    answer.message := format('the text has %s bytes, at most 8192 can be embedded from SQL', size);
    answer.hint := 'embed the text in the application and call livedex.search_vector';
    return answer;
  end if;
  for attempt in 1 .. 2 loop
    execute format('select $1 = any(coalesce(%I.dblink_get_connections(), ''{}''))', home) into kept using link;
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
  answer.message := 'the query worker did not embed the text in time';
  answer.hint := 'ask again with a longer timeout; livedex doctor says whether the query worker is well';
  return answer;
end
$$;

reset role;
