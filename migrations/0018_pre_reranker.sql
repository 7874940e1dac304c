-- migrate:up
-- Which cross-encoder judges the candidates of a collection's searches.
set local role livedex_owner;

alter table livedex.collection add column reranker text not null default '';

-- Refuses what no search can mean; raises 22023, or 0A000 for what this version cannot do.
create or replace function livedex.check_search(
  k int, filter jsonb, mode text, per_document int, has_vector boolean, query text, rerank boolean
) returns void
language plpgsql immutable set search_path = pg_catalog, livedex, pg_temp as $$
begin
  if k is null or k not between 1 and 1000 then
    raise exception 'k is %, expected 1 to 1000', coalesce(k::text, 'null') using errcode = '22023';
  elsif per_document is null or per_document not between 1 and 1000 then
    raise exception 'per_document is %, expected 1 to 1000', coalesce(per_document::text, 'null') using errcode = '22023';
  elsif mode is null or mode not in ('hybrid', 'vector', 'text') then
    raise exception 'mode is %, expected hybrid, vector or text', coalesce(quote_literal(mode), 'null') using errcode = '22023';
  elsif filter is null or jsonb_typeof(filter) <> 'object' then
    raise exception 'filter is %, expected a JSON object', coalesce(jsonb_typeof(filter), 'null') using errcode = '22023';
  elsif mode <> 'text' and not has_vector then
    raise exception 'the embedding is null, mode % needs one', mode using errcode = '22023';
  elsif mode = 'text' and query is null or query = '' then
    raise exception 'the query text is empty, mode % needs one', mode using errcode = '22023';
  elsif char_length(query) > 8192 then
    raise exception 'the query text has % characters, at most 8192 are searched for', char_length(query)
      using errcode = '54000', hint = 'ask for less: a model reads some hundred words of it';
  elsif rerank then
    raise exception 'a search in SQL cannot be reranked'
      using errcode = '0A000', hint = 'ask livedex serve over HTTP with "rerank": true, or call without rerank => true';
  end if;
end
$$;
reset role;
