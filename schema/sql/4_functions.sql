-- The functions of livedex. Those that applications call run as the owner, so that callers need no right on a table.
set local role livedex_owner;

-- The schema that has pgvector, quoted. It differs between servers, and others may be allowed to create in it, so it is in no
-- function's search path: what is needed of it is named in full.
create function livedex.vector_schema() returns text
language sql stable parallel safe set search_path = pg_catalog, livedex, pg_temp
return (select quote_ident(n.nspname::text) from pg_extension e join pg_namespace n on n.oid = e.extnamespace
         where e.extname = 'vector');

-- Who asked: inside these functions current_user is the owner.
create function livedex.caller() returns name
language sql stable parallel safe
return coalesce(nullif(current_setting('role', true), 'none'), session_user::text)::name;

-- Writes down which role a grant names.
create function livedex.note_role() returns trigger
language plpgsql set search_path = pg_catalog, livedex, pg_temp as $$
begin
  new.role_oid := (select r.oid from pg_roles r where r.rolname = new.role);
  return new;
end
$$;
create trigger collection_access_role before insert on livedex.collection_access for each row execute function livedex.note_role();

-- Whether the caller may search a collection: superusers and the workers' roles all, others what was granted to a role of theirs.
create function livedex.may_search(wanted int) returns boolean
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  asking constant name := livedex.caller();
begin
  return pg_has_role(asking, 'livedex_owner', 'member') or pg_has_role(asking, 'livedex_query', 'member')
    or exists (select from livedex.collection_access a
                 join pg_roles r on r.rolname = a.role and r.oid = a.role_oid -- a role that was dropped would be an error
                where a.collection_id = wanted and pg_has_role(asking, r.oid, 'member'));
end
$$;

-- The collection of this name, if the caller may search it; raises 42704 and 42501.
create function livedex.searchable_collection(wanted text) returns livedex.collection
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
  if not livedex.may_search(found_collection.collection_id) then
    raise exception 'role % may not search the collection %', quote_ident(asking::text), quote_ident(wanted)
      using errcode = '42501', hint = format('an operator can allow it: livedex grant %s %s', wanted, asking);
  end if;
  return found_collection;
end
$$;

-- Makes the table of a generation's vectors. Its index is built later, behind the rows: row by row it costs ten times as much.
create function livedex.create_embedding_table(wanted int) returns void
language plpgsql set search_path = pg_catalog, livedex, pg_temp as $$
declare
  home constant text := livedex.vector_schema();
  g livedex.generation;
begin
  select * into strict g from livedex.generation where generation_id = wanted;
  execute format('create table livedex.embedding_%s (chunk_key bigint primary key references livedex.chunk on delete cascade, '
                 'embedding %s.%s(%s) not null)', g.generation_id, home, g.storage, g.dimension);
  -- beside the row and not in TOAST: every candidate's vector is read
  execute format('alter table livedex.embedding_%s alter embedding set storage plain, '
                 'set (autovacuum_vacuum_scale_factor = 0.05)', g.generation_id);
  execute format('alter table livedex.embedding_%s owner to livedex_owner', g.generation_id);
  execute format('grant select, insert, delete on livedex.embedding_%s to livedex_indexer', g.generation_id);
  execute format('grant select on livedex.embedding_%s to livedex_query', g.generation_id);
end
$$;

-- One step towards the end of a source's rebuild: once every partition is where the log ended at the reset, the documents that
-- only the earlier log had are deleted, at most `most` a call, and the source is live when none is left. How many were deleted.
create function livedex.finish_rebuild(wanted text, most int default 1000) returns bigint
language plpgsql volatile set search_path = pg_catalog, livedex, pg_temp as $$
declare
  s livedex.source;
  gone bigint;
begin
  select * into s from livedex.source where topic = wanted and state = 'rebuilding' for update skip locked;
  if not found or exists (select from livedex.source_progress p where p.topic = wanted and p.next_offset < p.rebuild_until) then
    return 0;
  end if;
  with left_over as (
    select d.doc_key
      from livedex.document d
     where d.collection_id = s.collection_id and d.topic = s.topic and not d.deleted and d.content_version[1] < s.epoch
     order by d.document_id
     limit most
       for update
  ), unmapped as (
    delete from livedex.document_chunk m using left_over o where m.doc_key = o.doc_key
  )
  update livedex.document d
     set deleted = true, title = null, indexed_at = clock_timestamp(),
         metadata = case when d.metadata_version[1] < s.epoch then '{}' else d.metadata end
    from left_over o
   where d.doc_key = o.doc_key;
  get diagnostics gone = row_count;
  if gone < most then
    update livedex.source set state = 'live', reason = null where topic = wanted;
    update livedex.source_progress set rebuild_until = null where topic = wanted;
    update livedex.dead_letter set state = 'discarded' where topic = wanted and epoch < s.epoch and state = 'open';
  end if;
  return gone;
end
$$;
grant execute on function livedex.finish_rebuild to livedex_indexer;

-- Waits until the event at `topic:partition:offset` is searchable, or a dead letter; false when the timeout came first.
create function livedex.wait_for(token text, timeout interval default '5 s') returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, livedex, pg_temp as $$
declare
  place text[] := regexp_match(token, '^(.+):([0-9]{1,9}):([0-9]{1,18})$');
  deadline timestamptz := clock_timestamp() + timeout;
  nap float8 := 0.001;
begin
  if place is null then
    raise exception 'the token % is no topic:partition:offset', coalesce(quote_literal(token), 'null') using errcode = '22023';
  end if;
  if timeout is null then
    raise exception 'the timeout is null, an interval was expected' using errcode = '22023';
  end if;
  if not exists (select from livedex.source s where s.topic = place[1]) then
    raise exception 'the token % names a topic that no collection follows', quote_literal(token)
      using errcode = '22023', hint = 'livedex source list names the topics';
  end if;
  loop
    if exists (select from livedex.source_progress p
                where p.topic = place[1] and p.partition = place[2]::int and p.next_offset > place[3]::bigint) then
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
