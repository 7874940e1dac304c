-- migrate:up
-- Probes of a vector index are added up over time: in a large table one asks for a query or two, which says nothing alone.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';
-- loads pgvector into this session: only a superuser may attach settings to a function that the server does not know yet
do $$ begin perform '[0]'::vector; end $$;

alter table livedex.upkeep
  add column probe_queries int not null default 0, -- asked for since `recall` was told: so many queries,
  add column probe_nearest bigint not null default 0, -- which have so many nearest,
  add column probe_hits    bigint not null default 0; -- of which the index found so many

/* How much of the truth the vector index of a generation finds: of the ten nearest of some of the stored vectors. `queries` are
   asked for, or as many as the budget allows, at least one, and told. Only vectors of some pages are drawn, so that the draw
   costs the same in a large table. */
create function livedex.probe_index(wanted int, inout queries int, budget interval, out nearest bigint, out hits bigint)
language plpgsql volatile security definer set search_path = pg_catalog, livedex, pg_temp
set hnsw.ef_search = 100 -- the least that a search takes
set enable_seqscan = off
set jit = off
as $$
declare
  deadline constant timestamptz := clock_timestamp() + budget;
  g livedex.generation;
  rows_of text;
  distance text;
  near text; -- a stored vector
  farthest float8;
  there bigint;
  seen bigint;
  most constant int := queries;
begin
  queries := 0;
  nearest := 0;
  hits := 0;
  select * into strict g from livedex.generation where generation_id = wanted;
  rows_of := format('livedex.embedding_%s', g.generation_id);
  distance := format('embedding operator(%1$s.%2$s) $1::%1$s.%3$s', livedex.vector_schema(),
    case g.metric when 'cosine' then '<=>' when 'dot' then '<#>' else '<->' end, g.storage);
  for near in execute format('select embedding::text from %s tablesample system (%s) order by random() limit %s', rows_of,
    least(100, 100.0 * 2000 * current_setting('block_size')::int / greatest(pg_relation_size(rows_of), 1)), most)
  loop
    -- + 0: no index gives this order, so that every vector is compared
    execute format('select max(d), count(*) from (select (%s) + 0 as d from %s order by 1 limit 10) n', distance, rows_of)
       into farthest, there using near;
    execute format('select count(*) from (select %1$s as d from %2$s order by %1$s limit 10) n where d <= $2', distance, rows_of)
       into seen using near, farthest;
    queries := queries + 1;
    nearest := nearest + there;
    hits := hits + least(seen, there);
    exit when clock_timestamp() > deadline;
  end loop;
end
$$;

-- The same as a share, null where there is nothing: for people, and for workers of an older livedex.
create or replace function livedex.index_recall(wanted int, queries int, budget interval) returns float8
language sql volatile security definer set search_path = pg_catalog, livedex, pg_temp
as $$ select p.hits::float8 / nullif(p.nearest, 0) from livedex.probe_index(wanted, queries, budget) p $$;

revoke execute on function livedex.probe_index from public;
grant execute on function livedex.probe_index to livedex_indexer;
reset role;
