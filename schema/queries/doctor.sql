-- name: roles
-- The roles of livedex that the server lacks, whether livedex_query cannot search, and whether this role may see the grants.
select array(select r from unnest(array['livedex_owner', 'livedex_indexer', 'livedex_query', 'livedex_search']) r
              where not exists (select from pg_roles p where p.rolname = r)),
       coalesce((select not pg_has_role(p.oid, 'livedex_search', 'member') from pg_roles p where p.rolname = 'livedex_query'
                    and exists (select from pg_roles s where s.rolname = 'livedex_search')), false),
       coalesce(has_table_privilege(to_regclass('livedex.collection_access'), 'select'), false)

-- name: stale_grants
-- To roles that were dropped, or whose name another has by now.
select array(select c.name || ' ' || a.role from livedex.collection_access a join livedex.collection c using (collection_id)
              where not exists (select from pg_roles p where p.rolname = a.role and p.oid = a.role_oid) order by 1)

-- name: may_run
select current_user, pg_has_role('livedex_owner', 'usage') or pg_has_role('livedex_indexer', 'usage'),
       pg_has_role('livedex_owner', 'usage') or pg_has_role('livedex_query', 'usage'),
       has_schema_privilege('livedex', 'usage')

-- name: lacking
-- What a worker does, and this role may not.
select array(
  select format('%%s on livedex.%%s', r.privilege, r.relation)
    from (values ('index', 'collection', 'select'), ('index', 'chunking', 'select'), ('index', 'generation', 'select'),
                 ('index', 'source', 'select'), ('index', 'document', 'select'), ('index', 'document', 'insert'),
                 ('index', 'document', 'update'), ('index', 'document', 'delete'), ('index', 'chunk', 'select'),
                 ('index', 'chunk', 'insert'), ('index', 'chunk', 'delete'), ('index', 'chunk_orphan', 'select'),
                 ('index', 'chunk_orphan', 'insert'), ('index', 'chunk_orphan', 'update'), ('index', 'chunk_orphan', 'delete'),
                 ('index', 'document_chunk', 'select'), ('index', 'document_chunk', 'insert'),
                 ('index', 'document_chunk', 'update'), ('index', 'document_chunk', 'delete'),
                 ('index', 'source_progress', 'select'), ('index', 'source_progress', 'insert'),
                 ('index', 'source_progress', 'update'), ('index', 'dead_letter', 'select'), ('index', 'dead_letter', 'insert'),
                 ('index', 'dead_letter', 'update'), ('index', 'upkeep', 'select'), ('index', 'upkeep', 'insert'),
                 ('index', 'upkeep', 'update'),
                 ('serve', 'collection', 'select'), ('serve', 'generation', 'select'), ('serve', 'chunking', 'select'),
                 ('serve', 'source', 'select'), ('serve', 'document', 'select'), ('serve', 'document_chunk', 'select'),
                 ('serve', 'source_progress', 'select'), ('serve', 'dead_letter', 'select'), ('serve', 'upkeep', 'select'),
                 ('serve', 'query_embedding', 'select'), ('serve', 'query_embedding', 'insert'),
                 ('serve', 'query_embedding', 'delete')) r(worker, relation, privilege)
   where r.worker = %(worker)s and not has_table_privilege(format('livedex.%%I', r.relation), r.privilege)
  union all
  select format('execute on livedex.%%s', f.proname)
    from pg_proc f
   where f.pronamespace = 'livedex'::regnamespace and not has_function_privilege(f.oid, 'execute')
     and f.proname = any(case %(worker)s when 'serve' then array['search_vector', 'is_searchable']
                                         else array['finish_rebuild', 'probe_index', 'note_frequent_words'] end)
  union all
  select format('%%s on livedex.%%s', r.privilege, t.relname)
    from livedex.generation g
    join pg_class t on t.oid = to_regclass('livedex.embedding_' || g.generation_id)
    join (values ('index', 'select'), ('index', 'insert'), ('index', 'delete'), ('serve', 'select')) r(worker, privilege)
      on r.worker = %(worker)s
   where not has_table_privilege(t.oid, r.privilege))

-- name: memory
select pg_size_bytes(current_setting('shared_buffers')), pg_size_bytes(current_setting('maintenance_work_mem'))

-- name: embeddings
-- The tables of vectors that have an index, or get one: collection, bytes, dimension, storage.
select c.name, pg_relation_size(t.oid), g.dimension, g.storage
  from livedex.generation g
  join livedex.collection c using (collection_id)
  join pg_class t on t.oid = to_regclass('livedex.embedding_' || g.generation_id)
 where g.state in ('building', 'active', 'kept') and g.index_method = 'hnsw'

-- name: clock
select extract(epoch from clock_timestamp())::float8

-- name: folder
-- Null where this role may not know it.
select case when pg_has_role('pg_read_all_settings', 'member') then current_setting('data_directory', true) end

-- name: texts
select (select count(distinct l.pid) from pg_locks l
         where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid::bigint = %(presence)s
           and l.database = (select oid from pg_database where datname = current_database())),
       exists (select from pg_extension where extname = 'dblink')
       and exists (select from pg_foreign_server where srvname = 'livedex_worker')

-- name: split
select array(select distinct d.topic from livedex.document d
              where not d.deleted and d.metadata_version[3] <> d.content_version[3] order by 1)

-- name: progress
select topic, partition, next_offset from livedex.source_progress
