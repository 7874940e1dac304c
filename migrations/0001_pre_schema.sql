-- migrate:up
-- The four roles of livedex and the schema that holds everything. Roles belong to the whole server: they may be there.
do $$
declare
  role_name text;
begin
  foreach role_name in array array['livedex_owner', 'livedex_indexer', 'livedex_query', 'livedex_search'] loop
    begin
      if not exists (select from pg_roles where rolname = role_name) then
        execute format('create role %I nologin', role_name);
      end if;
    exception when duplicate_object or unique_violation then
      null; -- another database of this server was migrated at the same moment
    end;
  end loop;
  if not pg_has_role('livedex_query', 'livedex_search', 'member') then
    grant livedex_search to livedex_query;
  end if;
  -- usage, not member: since Postgres 16 who creates a role is a member that may not act as it
  if not pg_has_role(current_user, 'livedex_owner', 'usage') then
    execute format('grant livedex_owner to %I', current_user);
  end if;
end
$$;

create extension if not exists vector;
-- pgvector may live in a schema of its own
do $$
declare
  home text := (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector');
begin
  if not has_schema_privilege('livedex_search', home, 'usage') then
    execute format('grant usage on schema %I to livedex_owner, livedex_indexer, livedex_query, livedex_search', home);
  end if;
end
$$;

create schema if not exists livedex;
alter schema livedex owner to livedex_owner;
grant usage on schema livedex to livedex_indexer, livedex_query, livedex_search;

-- The migrations that this database has; a file that was applied is never edited.
create table livedex.schema_migration (
  version    text primary key,
  sha256     text not null,
  applied_at timestamptz not null default clock_timestamp()
);
alter table livedex.schema_migration owner to livedex_owner;
