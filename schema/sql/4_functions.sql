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

-- The type of the vectors that are stored. Of storage bit the index has the signs only; the vectors rank what it finds.
create function livedex.vector_type(storage text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
return case storage when 'bit' then 'halfvec' else storage end;

-- Makes the table of a generation's vectors. Its index is built later, behind the rows: row by row it costs ten times as much.
create function livedex.create_embedding_table(wanted int) returns void
language plpgsql set search_path = pg_catalog, livedex, pg_temp as $$
declare
  home constant text := livedex.vector_schema();
  g livedex.generation;
begin
  select * into strict g from livedex.generation where generation_id = wanted;
  execute format('create table livedex.embedding_%s (chunk_key bigint primary key references livedex.chunk on delete cascade, '
                 'embedding %s.%s(%s) not null)', g.generation_id, home, livedex.vector_type(g.storage), g.dimension);
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
create function livedex.wait_for(token text, timeout interval default '5 s') returns boolean
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
