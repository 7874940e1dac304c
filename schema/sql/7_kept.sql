/* Functions of the version before: a search that began before a migration calls them when it goes on after it. The next version
   drops them. */
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

create function livedex.any_word(config regconfig, question text) returns tsquery
language sql immutable parallel safe set search_path = pg_catalog, livedex, pg_temp
return (select string_agg(quote_literal(word), ' | ')::tsquery from unnest(tsvector_to_array(to_tsvector(config, question))) as word);

create function livedex.search_statement(g livedex.generation, mode text, exact boolean, with_text boolean) returns text
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  visible constant text := 'not d.deleted and d.collection_id = $2 and d.metadata @> $4 '
    'and ($5::timestamptz is null or d.event_time >= $5) and ($6::timestamptz is null or d.event_time < $6)';
  -- a subquery with a limit is never pulled up into a join, so the index scan below stays an index scan
  mapped constant text := format('(select true from livedex.document_chunk m join livedex.document d using (doc_key) '
    'where m.chunk_key = %%s.chunk_key and m.chunking_id = $3 and %s limit 1)', visible);
  distance constant text := format('e.embedding operator(%1$s.%2$s) $1::%1$s.%3$s(%4$s)', livedex.vector_schema(),
    case g.metric when 'cosine' then '<=>' when 'dot' then '<#>' else '<->' end, g.storage, g.dimension);
  nothing constant text := 'select null::bigint as chunk_key, null::float8 as %s, null::bigint as rank where false';
  near text;
  worded text;
begin
  near := case
    when mode = 'text' then format(nothing, 'distance')
    -- + 0: no index gives this order, so that every vector is compared
    when exact then format('select e.chunk_key, (%s) + 0 as distance from (select distinct m.chunk_key from livedex.document d '
      'join livedex.document_chunk m using (doc_key) where m.chunking_id = $3 and %s) v '
      'join livedex.embedding_%s e using (chunk_key) order by distance, chunk_key limit $7', distance, visible, g.generation_id)
    else format('select e.chunk_key, %s as distance from livedex.embedding_%s e where %s order by %1$s limit $7',
      distance, g.generation_id, format(mapped, 'e'))
  end;
  if mode <> 'text' then
    -- + 0: the index gives its rows only nearly in order, here they are sorted
    near := format('select chunk_key, distance, row_number() over (order by distance + 0, chunk_key) as rank from (%s) n', near);
  end if;
  worded := case
    when not with_text then format(nothing, 'weight')
    else format('select chunk_key, weight, row_number() over (order by weight desc, chunk_key) as rank from ('
      'select c.chunk_key, ts_rank_cd(c.tsv, $10)::float8 as weight from livedex.chunk c '
      'where c.collection_id = $2 and c.tsv @@ $10 and %s order by weight desc, c.chunk_key limit $7) t', format(mapped, 'c'))
  end;
  return format($sql$
    with near as materialized (%s), worded as materialized (%s),
    fused as (select chunk_key, %s as score from near full join worded using (chunk_key)),
    placed as (
      select d.document_id, f.score, d.title, m.ordinal, m.chunk_key, d.metadata,
             greatest(d.content_version[2], d.metadata_version[2]) as version, d.event_time, d.indexed_at,
             row_number() over (partition by d.doc_key order by f.score desc, m.ordinal) as nth
        from fused f
        join livedex.document_chunk m on m.chunk_key = f.chunk_key and m.chunking_id = $3
        join livedex.document d on d.doc_key = m.doc_key
       where %s),
    best as (select * from placed where nth <= $8 order by score desc, document_id, ordinal limit $9)
    select (select count(*) from near), (select count(*) from worded),
           array(select row(b.document_id, b.score, b.title, c.text, b.ordinal, b.metadata, b.version, b.event_time,
                            b.indexed_at)::livedex.search_result
                   from best b join livedex.chunk c using (chunk_key) order by b.score desc, b.document_id, b.ordinal)
    $sql$, near, worded,
    case mode when 'text' then 'weight'
              when 'vector' then case g.metric when 'cosine' then '1 - distance' when 'dot' then '-distance' else '1 / (1 + distance)' end
              else 'coalesce(1.0 / (60 + near.rank), 0)::float8 + coalesce(1.0 / (60 + worded.rank), 0)::float8' end,
    visible);
end
$$;

create function livedex.at_most(
  few int, collection int, chunking int, filter jsonb, since timestamptz, until timestamptz
) returns boolean
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
  eligible bigint;
begin
  if filter = '{}' and since is null and until is null then
    select count(*) into eligible from (select from livedex.document_chunk m where m.chunking_id = chunking limit few + 1) e;
  else
    select count(*) into eligible
      from (select from livedex.document d join livedex.document_chunk m using (doc_key)
             where d.collection_id = collection and m.chunking_id = chunking and not d.deleted and d.metadata @> filter
               and (since is null or d.event_time >= since) and (until is null or d.event_time < until)
             limit few + 1) e;
  end if;
  return eligible <= few;
end
$$;

revoke execute on function livedex.any_word(regconfig, text), livedex.search_statement(livedex.generation, text, boolean, boolean),
  livedex.at_most(int, int, int, jsonb, timestamptz, timestamptz) from public;
reset role;
