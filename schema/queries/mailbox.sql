-- name: secret
select secret from livedex.mailbox_secret

-- name: look
-- The keys by which sessions of this database carry texts.
select pid, class << 32 | object from livedex.advisory_locks where form = 1 and class >> 24 in (94, 95)

-- name: keep
insert into livedex.query_embedding (generation_id, digest, embedding) values (%s, %s, %s) on conflict do nothing

-- name: prune
-- The oldest beyond the cache's size, some at a time.
delete from livedex.query_embedding
 where (generation_id, digest) in (select generation_id, digest from livedex.query_embedding
                                    order by created_at desc offset %(most)s limit %(slice)s)
