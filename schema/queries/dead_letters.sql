-- name: list_letters
-- The newest first. A filter that is null lets everything pass.
select l.id, l.topic || ':' || l.partition || ':' || l."offset" as place, c.name as collection, l.document_id, l.reason, l.detail,
       l.attempts, l.state, l.failed_at
  from livedex.dead_letter l
  join livedex.source s using (topic)
  join livedex.collection c using (collection_id)
 where (%(ids)s::bigint[] is null or l.id = any(%(ids)s))
   and (%(state)s = 'all' or l.state = %(state)s)
   and (%(reason)s::text is null or l.reason = %(reason)s)
   and (%(topic)s::text is null or l.topic = %(topic)s)
   and (%(partition)s::int is null or l.partition = %(partition)s)
   and (%(collection)s::text is null or c.name = %(collection)s)
   and (%(document)s::text is null or l.document_id = %(document)s)
 order by l.id desc
 limit %(limit)s::bigint

-- name: show_letter
select l.id, l.topic || ':' || l.partition || ':' || l."offset" as place, c.name as collection, l.document_id, l.stage, l.reason,
       l.detail, l.attempts, l.state, l.epoch, l.version, l.timestamp, l.failed_at, l.headers, l.key, l.value
  from livedex.dead_letter l
  join livedex.source s using (topic)
  join livedex.collection c using (collection_id)
 where l.id = %(id)s

-- name: may_change_letters
select current_user, has_table_privilege('livedex.dead_letter', 'update') and has_table_privilege('livedex.document', 'update')

-- name: read_letter
-- The record with its exact bytes, and what its source is now.
select l.id, l.topic, l.partition, l."offset", l.document_id, l.key, l.value, l.headers, l.timestamp, l.reason, l.attempts, l.state,
       l.epoch, s.epoch as source_epoch, s.collection_id
  from livedex.dead_letter l
  join livedex.source s using (topic)
 where l.id = %(id)s

-- name: lock_letter
-- Whether the letter is still what it was when it was read, locked until the transaction ends, as its source is: of two who replay
-- it the second waits here, and a reset is before or after.
select l.state = %(state)s and s.epoch = %(epoch)s and c.active_generation = %(generation_id)s
       and array(select g.generation_id from livedex.generation g
                  where g.collection_id = c.collection_id and g.state in ('building', 'active', 'kept')
                  order by g.generation_id) = %(live)s::int[]
  from livedex.dead_letter l
  join livedex.source s using (topic)
  join livedex.collection c using (collection_id)
 where l.id = %(id)s
   for update of l for share of s

-- name: close_letter
update livedex.dead_letter set state = %(becomes)s where id = %(id)s and state = %(state)s

-- name: fail_letter
update livedex.dead_letter
   set attempts = attempts + 1, failed_at = clock_timestamp(), stage = %(stage)s, reason = %(reason)s, detail = %(detail)s,
       document_id = coalesce(%(document_id)s, document_id), version = coalesce(%(version)s, version)
 where id = %(id)s and state = %(state)s
returning attempts
