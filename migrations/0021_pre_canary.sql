-- migrate:up
-- Documents of livedex canary go through the log as all do, and no reader sees them. Their ids begin with livedex-canary/.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

-- Visible documents, without those of livedex canary. `pending_reason`: a newer update of the document than its content is an open
-- dead letter, and this is why.
create or replace view livedex.documents as
select c.name as collection,
       d.document_id,
       greatest(d.content_version[2], d.metadata_version[2]) as version,
       d.title,
       d.metadata,
       d.event_time,
       d.indexed_at,
       d.topic,
       d.partition,
       d."offset",
       (select l.reason
          from livedex.dead_letter l
          join livedex.source s on s.topic = l.topic and s.collection_id = d.collection_id
         where l.document_id = d.document_id and l.state = 'open'
           and (l.version > d.content_version
                -- a record that does not say its number: then its place tells, where the document's last event stands too
                or l.version is null and l.epoch = s.epoch
                   and l.topic = d.topic and l.partition = d.partition and l."offset" > d."offset")
         order by l.version desc nulls last, l."offset" desc
         limit 1) as pending_reason
  from livedex.document d
  join livedex.collection c using (collection_id)
 where not d.deleted and not d.document_id ^@ 'livedex-canary/';

-- The chunks of visible documents; a document's texts in the order of ordinal are its text.
create or replace view livedex.chunks as
select c.name as collection,
       d.document_id,
       m.ordinal,
       k.text,
       (sum(k.length) over up_to_here - k.length)::int as start_char,
       (sum(k.length) over up_to_here)::int as end_char
  from livedex.collection c
  join livedex.generation g on g.generation_id = c.active_generation
  join livedex.document d on d.collection_id = c.collection_id and not d.deleted and not d.document_id ^@ 'livedex-canary/'
  join livedex.document_chunk m on m.chunking_id = g.chunking_id and m.doc_key = d.doc_key
  join livedex.chunk k on k.chunk_key = m.chunk_key
window up_to_here as (partition by c.name, d.document_id order by m.ordinal);

/* Whether this search finds the documents of livedex canary too, whose ids begin with livedex-canary/: as the setting livedex.canary
   says, which only the canary's own searches switch on. Nobody else's sees them. */
create function livedex.finds_canaries() returns boolean
language sql stable parallel safe set search_path = pg_catalog, pg_temp
return coalesce(current_setting('livedex.canary', true) = 'on', false);

/* The statement that finds and ranks chunks. $1 vector, $2 collection_id, $3 chunking_id, $4 filter, $5 since, $6 until,
   $7 candidates of each leg, $8 tsquery. It answers the number of candidates that each leg gave, and chunk keys with their scores. A
   leg tests candidates against the map before its limit, so that rows no document has (staged ahead, or left by an edit) cannot
   crowd out visible ones. `exact`: all eligible vectors are compared; `few`: words are looked for in the eligible chunks, not in
   the text index. Null words: the mode has no text leg. */
create or replace function livedex.search_statement(
  g livedex.generation, mode text, exact boolean, few boolean, words text[], weights float8[]
) returns text
language plpgsql stable set search_path = pg_catalog, livedex, pg_temp as $$
declare
  visible constant text := 'not d.deleted and d.collection_id = $2 and d.metadata @> $4 '
    'and ($5::timestamptz is null or d.event_time >= $5) and ($6::timestamptz is null or d.event_time < $6)'
    || case when livedex.finds_canaries() then '' else ' and not d.document_id ^@ ''livedex-canary/''' end;
  -- a subquery with a limit is never pulled up into a join, so the index scan below stays an index scan
  mapped constant text := format('(select true from livedex.document_chunk m join livedex.document d using (doc_key) '
    'where m.chunk_key = %%s.chunk_key and m.chunking_id = $3 and %s limit 1)', visible);
  distance record; -- of an embedding to the question's
  near text;
  weight text;
  worded text;
begin
  if mode <> 'text' then
    select * into distance from livedex.distances(g);
    near := case
      -- + 0: no index gives this order, so that every vector is compared
      when exact then format('select e.chunk_key, (%s) + 0 as distance from eligible v join livedex.embedding_%s e using (chunk_key) '
        'order by distance, chunk_key limit $7', distance.exact, g.generation_id)
      -- many are found by their signs, and the best of them by their vectors
      when distance.indexed is not null then format('select * from (select e.chunk_key, %s as distance from livedex.embedding_%s e where %s '
        'order by %s limit $7 * %s) s order by distance, chunk_key limit $7',
        distance.exact, g.generation_id, format(mapped, 'e'), distance.indexed, livedex.oversampling(g.storage))
      else format('select e.chunk_key, %s as distance from livedex.embedding_%s e where %s order by %1$s limit $7',
        distance.exact, g.generation_id, format(mapped, 'e'))
    end;
    -- + 0: the index gives its rows only nearly in order, here they are sorted
    near := format(case mode when 'vector' then 'near as (%s)' else 'near as materialized (select chunk_key, row_number() over '
      '(order by distance + 0, chunk_key) as rank from (%s) n)' end, near);
  end if;
  if words is not null then
    -- the more words, and the rarer, the better, and shorter texts before longer ones; rarest words first, enough of them
    weight := format('(%s) / (1 + length(c.tsv) / 200.0)::float8', (
      select string_agg(format('(c.tsv @@ %L::tsquery)::int * %s::float8', livedex.quoted_word(word), w), ' + ')
        from unnest(words[:32], weights[:32]) t(word, w)));
    worded := case
      when few then format('select c.chunk_key, %s as weight from eligible v join livedex.chunk c using (chunk_key) '
        'where c.tsv @@ $8 order by weight desc, c.chunk_key limit $7', weight)
      -- offset 0: ranked first, so that the map is asked for the best only
      else format('select w.chunk_key, w.weight from (select c.chunk_key, %s as weight from livedex.chunk c '
        'where c.collection_id = $2 and c.tsv @@ $8 order by weight desc, c.chunk_key offset 0) w '
        'where %s order by w.weight desc, w.chunk_key limit $7', weight, format(mapped, 'w'))
    end;
    worded := format(case mode when 'text' then 'worded as (%s)' else 'worded as materialized (select chunk_key, row_number() over '
      '(order by weight desc, chunk_key) as rank from (%s) t)' end, worded);
  end if;
  near := concat_ws(', ', case when exact and near is not null or few and worded is not null
    then format('eligible as materialized (select distinct m.chunk_key from livedex.document d join livedex.document_chunk m using (doc_key) '
                'where m.chunking_id = $3 and %s)', visible) end, near, worded);
  return format('with %s select %s from %s', near, case
    when mode = 'vector' then format('count(*), 0::bigint, array_agg(chunk_key), array_agg(%s)',
      case g.metric when 'cosine' then '1 - distance' when 'dot' then '-distance' else '1 / (1 + distance)' end)
    when mode = 'text' then '0::bigint, count(*), array_agg(chunk_key), array_agg(weight)'
    when words is null then 'count(*), 0::bigint, array_agg(chunk_key), array_agg(1 / (60 + rank)::float8)'
    else 'count(near.rank), count(worded.rank), array_agg(chunk_key), '
         'array_agg(coalesce(1 / (60 + near.rank)::float8, 0) + coalesce(1 / (60 + worded.rank)::float8, 0))'
  end, case when mode = 'text' then 'worded' when words is null then 'near' else 'near full join worded using (chunk_key)' end);
end
$$;

/* One try of search_vector: the k best rows, with the number of candidates that each leg gave. Stable, so that both of its statements
   see one snapshot, of the statement that calls it. The second is the same for every search, so it is planned once a session, when the tables are not small any more. */
create or replace function livedex.best_chunks(
  c livedex.collection, g livedex.generation, statement text, embedding vector, filter jsonb, since timestamptz, until timestamptz,
  candidates int, wanted tsquery, per_document int, k int,
  out from_vector bigint, out from_text bigint, out answer livedex.search_result[]
) language plpgsql stable set search_path = pg_catalog, livedex, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
  large constant bigint := 2^20; -- bytes
  canaries constant boolean := livedex.finds_canaries();
  keys bigint[];
  scores float8[];
begin
  -- a plan that was made for a small table would be kept when it has grown, and takes hours then
  perform set_config('plan_cache_mode', case when pg_relation_size('livedex.document') < large
    or pg_relation_size('livedex.document_chunk') < large or pg_relation_size('livedex.chunk') < large
    then 'force_custom_plan' else 'force_generic_plan' end, true);
  execute statement into from_vector, from_text, keys, scores
    using embedding, c.collection_id, g.chunking_id, filter, since, until, candidates, wanted;
  answer := array(
    with placed as (
      select d.document_id, f.score, d.title, m.ordinal, m.chunk_key, d.metadata,
             greatest(d.content_version[2], d.metadata_version[2]) as version, d.event_time, d.indexed_at,
             row_number() over (partition by d.doc_key order by f.score desc, m.ordinal) as nth
        from unnest(keys, scores) f(chunk_key, score)
        join livedex.document_chunk m on m.chunk_key = f.chunk_key and m.chunking_id = g.chunking_id
        join livedex.document d on d.doc_key = m.doc_key
       where not d.deleted and d.collection_id = c.collection_id and d.metadata @> filter
         and (since is null or d.event_time >= since) and (until is null or d.event_time < until)
         and (canaries or not d.document_id ^@ 'livedex-canary/')), -- they may have a chunk in common with others
    best as (select * from placed where nth <= per_document order by score desc, document_id, ordinal limit k)
    select row(b.document_id, b.score, b.title, t.text, b.ordinal, b.metadata, b.version, b.event_time, b.indexed_at)::livedex.search_result
      from best b join livedex.chunk t using (chunk_key) order by b.score desc, b.document_id, b.ordinal);
end
$$;

revoke execute on function livedex.finds_canaries() from public;
reset role;
