-- name: search
select * from livedex.search_vector(
  %(embedding)s::vector, k => %(k)s, collection => %(collection)s, filter => %(filter)s, mode => %(mode)s, after => %(after)s,
  per_document => %(per_document)s, rerank => %(rerank)s, since => %(since)s, until => %(until)s,
  timeout => %(timeout)s, query => %(query)s)

-- name: begin_search
-- For this transaction only: its timeout, the generation that the question was embedded for, empty for the active one, and whether
-- documents of livedex canary are found.
select set_config('statement_timeout', %(milliseconds)s::text, true), set_config('livedex.generation', %(generation)s::text, true),
       set_config('livedex.canary', %(canaries)s::text, true)

-- name: places
-- Who is found by this mode alone, the best first.
select document_id from livedex.search_vector(
  %(embedding)s::vector, k => %(k)s, collection => %(collection)s, filter => %(filter)s, mode => %(mode)s,
  per_document => %(per_document)s, since => %(since)s, until => %(until)s, timeout => %(timeout)s, query => %(query)s)

-- name: shared_words
-- The words of each text, as they stand there, that a question has too: in the eyes of the text configuration of the collection, to
-- which "clocks" and "clock" are one word.
with chosen as (
  select k.text_config as config, p.cfgparser as parser
    from livedex.collection c
    join livedex.generation g on g.generation_id = c.active_generation
    join livedex.chunking k on k.chunking_id = g.chunking_id
    join pg_ts_config p on p.oid = k.text_config
   where c.name = %(collection)s),
asked as materialized (select tsvector_to_array(to_tsvector(config, %(query)s)) as words from chosen),
found as materialized (
  select distinct t.nr, w.token from chosen, unnest(%(texts)s::text[]) with ordinality t(text, nr), ts_parse(chosen.parser, t.text) w)
select f.nr, f.token from found f, chosen, asked
 where tsvector_to_array(to_tsvector(chosen.config, f.token)) && asked.words
 order by f.nr, f.token

-- name: set_timeout
-- For this transaction only.
select set_config('statement_timeout', %(milliseconds)s::text, true)

-- name: status_sources
select s.topic, c.name as collection, s.state, s.reason, p.partition, p.next_offset, p.owner, p.event_time, p.updated_at
  from livedex.source s
  join livedex.collection c using (collection_id)
  left join livedex.source_progress p using (topic)
 order by s.topic, p.partition

-- name: status_collections
select c.name as collection, c.version_mode as versions, g.generation_id as generation, g.model, g.dimension, g.metric,
       (select count(*) from livedex.document d
         where d.collection_id = c.collection_id and not d.deleted and not d.document_id ^@ 'livedex-canary/') as documents,
       (select count(*) from livedex.document_chunk m where m.chunking_id = g.chunking_id)
       - (select count(*) from livedex.document d join livedex.document_chunk m using (doc_key)
           where d.collection_id = c.collection_id and d.document_id ^@ 'livedex-canary/' and m.chunking_id = g.chunking_id) as chunks
  from livedex.collection c
  left join livedex.generation g on g.generation_id = c.active_generation
 order by c.name

-- name: status_workers
-- Owners of partitions, and the workers that have sessions at this server: of those their names are seen, by everybody.
-- `updated_at`: when one moved its progress last. `texts`: it embeds texts for sessions.
with sessions as (
  select case when a.application_name ^@ 'livedex-serve-' then 'query' else 'index' end as kind,
         regexp_replace(a.application_name, '^(livedex-serve-.*)-(probe|mailbox|status)$', '\1') as worker,
         exists (select from pg_locks l
                  where l.pid = a.pid and l.locktype = 'advisory' and l.granted and l.objsubid = 2
                    and l.classid::bigint = %(presence)s) as texts
    from pg_stat_activity a
   where a.datname = current_database()
     and (a.application_name ^@ 'livedex-serve-' or a.application_name ~ '-[0-9]+-[0-9a-f]{{6}}$')
), connected as (
  select worker, kind, bool_or(texts) as texts from sessions group by worker, kind
), owners as (
  select owner as worker, count(*) as partitions, max(updated_at) as updated_at from livedex.source_progress group by owner
)
select worker, coalesce(c.kind, 'index') as kind, c.worker is not null as connected, coalesce(o.partitions, 0) as partitions,
       o.updated_at, coalesce(c.texts, false) as texts
  from connected c
  full join owners o using (worker)
 where worker <> ''
 order by 2, 1

-- name: status_freshness
-- How long the documents took that became searchable in the last seconds: from the time of their event, which is the producer's
-- where it gives one. Only events of the window are looked at: by their time there is an index. It is the statement's time, since a
-- bound that is volatile could not use the index.
select count(*) as documents,
       percentile_cont(0.5) within group (order by age) as median_seconds,
       percentile_cont(0.95) within group (order by age) as p95_seconds,
       max(age) as max_seconds
  from livedex.collection c,
       lateral (select greatest(extract(epoch from d.indexed_at - d.event_time), 0)::float8 as age
                  from livedex.document d
                 where d.collection_id = c.collection_id and not d.deleted and not d.document_id ^@ 'livedex-canary/'
                   and d.event_time between statement_timestamp() - make_interval(secs => %(window)s) and statement_timestamp()
                   and d.indexed_at > statement_timestamp() - make_interval(secs => %(seconds)s)) a

-- name: status_dead_letters
select reason, count(*) as letters from livedex.dead_letter where state = 'open' group by reason order by reason

-- name: searchable
select name, reranker from livedex.collection where active_generation is not null order by name

-- name: freshness
-- Of the documents of each collection that changed within the window: how long that took to be searchable, in seconds, for the whole
-- window (slice null) and for slices of it. Event times that are still to come are left out: they say that a clock is wrong.
select c.name as collection, d.slice, count(*) as documents,
       percentile_cont(0.5) within group (order by d.seconds) as p50, percentile_cont(0.95) within group (order by d.seconds) as p95
  from livedex.collection c,
       lateral (select extract(epoch from greatest(d.indexed_at - d.event_time, interval '0'))::float8 as seconds,
                       (floor(extract(epoch from d.event_time) / %(slice)s) * %(slice)s)::float8 as slice
                  from livedex.document d
                 where d.collection_id = c.collection_id and not d.deleted and not d.document_id ^@ 'livedex-canary/'
                   and d.event_time between statement_timestamp() - make_interval(secs => %(window)s) and statement_timestamp()
                 order by d.event_time desc
                 limit %(most)s) d
 group by grouping sets ((c.name, d.slice), (c.name))
 order by c.name, d.slice nulls first

-- name: list_sources
select s.topic, c.name as collection, s.state, s.epoch, s.reason,
       (select count(*) from livedex.source_progress p where p.topic = s.topic) as partitions
  from livedex.source s
  join livedex.collection c using (collection_id)
 order by s.topic

-- name: status_indexes
-- The vector index of each collection. What a build does, and the transaction that it waits for, Postgres shows only to members of
-- pg_read_all_stats and of the building worker's role. `worker`: who does the upkeep, if somebody does.
select c.name as collection,
       case when i.ready then 'ready'
            when i.there and b.pid is not null then 'building'
            when i.there then 'invalid'
            else 'none' end as state,
       p.phase,
       case when p.phase ~ '^building' then round(100.0 * p.blocks_done / nullif(p.blocks_total, 0))::int end as percent,
       w.pid as waits_for_pid, w.application_name as waits_for_application, w.xact_start as waits_for_since,
       u.recall, u.unmapped as unmapped_share,
       case when exists (select from pg_locks l
                          where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                            and l.database = (select oid from pg_database where datname = current_database())
                            and l.classid::bigint << 32 | l.objid::bigint = %(lock)s) then u.worker end as worker,
       u.problem
  from livedex.collection c
  left join pg_class t on t.oid = to_regclass('livedex.embedding_' || c.active_generation)
  left join livedex.upkeep u on u.generation_id = c.active_generation
  left join lateral (select bool_or(v.valid) as ready, true as there
                       from livedex.vector_indexes v
                      where v.relation = t.oid
                     having count(*) > 0) i on true
  left join lateral (select l.pid from pg_locks l
                      where l.relation = t.oid and l.mode = 'ShareUpdateExclusiveLock' and l.granted
                        and l.database = (select oid from pg_database where datname = current_database())
                      limit 1) b on i.there
  left join pg_stat_progress_create_index p on p.pid = b.pid and p.relid = t.oid
  left join pg_stat_activity w on w.pid = p.current_locker_pid
 order by c.name
