-- migrate:up
-- Applications that keep vectors can tell which generation they are of, and search in that one.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

-- The number of the generation that a collection is searched in: vectors of different ones do not compare.
create function livedex.active_generation(collection text default 'default') returns int
language sql stable security definer set search_path = pg_catalog, livedex, pg_temp
begin atomic
  select (livedex.searchable_collection(collection)).active_generation;
end;

-- The vector that a collection's model gives for a query text.
create or replace function livedex.embed(query text, collection text default 'default', timeout interval default '2 s') returns vector
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

revoke execute on function livedex.active_generation from public;
grant execute on function livedex.active_generation to livedex_search, livedex_query, livedex_indexer;
reset role;
