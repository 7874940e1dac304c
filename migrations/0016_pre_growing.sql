-- migrate:up
-- What follows the ranking is planned once a session only when the tables are not small any more.
set local role livedex_owner;
select set_config('search_path', format('pg_catalog, livedex, %I, pg_temp', n.nspname), true)
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace
 where e.extname = 'vector';

/* One try of search_vector: the k best rows, with the number of candidates that each leg gave. Stable, so that both of its statements
   see one snapshot, of the statement that calls it. The second is the same for every search, so it is planned once a session, when the tables are not small any more. */
create or replace function livedex.best_chunks(
  c livedex.collection, g livedex.generation, statement text, embedding vector, filter jsonb, since timestamptz, until timestamptz,
  candidates int, wanted tsquery, per_document int, k int,
  out from_vector bigint, out from_text bigint, out answer livedex.search_result[]
) language plpgsql stable set search_path = pg_catalog, livedex, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
  large constant bigint := 2^20; -- bytes
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
         and (since is null or d.event_time >= since) and (until is null or d.event_time < until)),
    best as (select * from placed where nth <= per_document order by score desc, document_id, ordinal limit k)
    select row(b.document_id, b.score, b.title, t.text, b.ordinal, b.metadata, b.version, b.event_time, b.indexed_at)::livedex.search_result
      from best b join livedex.chunk t using (chunk_key) order by b.score desc, b.document_id, b.ordinal);
end
$$;

reset role;
