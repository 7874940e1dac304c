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

-- name: status_dead_letters
select reason, count(*) as letters from livedex.dead_letter where state = 'open' group by reason order by reason

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
