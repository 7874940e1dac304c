-- migrate:up
-- Grants are to a role, not to whoever has its name later.
set local role livedex_owner;

alter table livedex.collection_access add column role_oid oid; -- null: there was no such role
delete from livedex.collection_access a where not exists (select from pg_roles r where r.rolname = a.role);
update livedex.collection_access a set role_oid = r.oid from pg_roles r where r.rolname = a.role;

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
  if not livedex.may_search(found_collection.collection_id) then
    raise exception 'role % may not search the collection %', quote_ident(asking::text), quote_ident(wanted)
      using errcode = '42501', hint = format('an operator can allow it: livedex grant %s %s', wanted, asking);
  end if;
  return found_collection;
end
$$;

revoke execute on function livedex.note_role, livedex.may_search from public;
reset role;
