-- name: lock_source
-- The row stays locked until the reset is done, so that a claim is before or after it.
select s.topic, s.topic_id::text, s.partitions, s.state, c.version_mode
  from livedex.source s
  join livedex.collection c using (collection_id)
 where s.topic = %(topic)s
   for update of s

-- name: reset_source
update livedex.source
   set epoch = epoch + %(raise)s, topic_id = %(topic_id)s::uuid, partitions = %(partitions)s, state = 'rebuilding', reason = null
 where topic = %(topic)s
returning epoch

-- name: reset_progress
-- The owner epoch rises with it, so that nothing that is in flight can be applied.
insert into livedex.source_progress as p (topic, partition, next_offset, owner, rebuild_until)
values (%(topic)s, %(partition)s, %(start)s, 'livedex source reset', %(end)s)
on conflict (topic, partition) do update
   set next_offset = excluded.next_offset, owner_epoch = p.owner_epoch + 1, owner = excluded.owner, event_time = null,
       rebuild_until = excluded.rebuild_until, updated_at = clock_timestamp()

-- name: forget_partitions
delete from livedex.source_progress where topic = %(topic)s and partition >= %(partitions)s

-- name: discard_letters
-- Of a topic that was made anew: their offsets mean other records now, and where the epoch stays those would take their place.
update livedex.dead_letter set state = 'discarded' where topic = %(topic)s and state = 'open'
