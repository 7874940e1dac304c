-- name: collection
select collection_id from livedex.collection where name = %(collection)s

-- name: role
select oid::int8, pg_has_role(oid, 'livedex_search', 'usage') as searches from pg_roles where rolname = %(role)s

-- name: forget
-- Grants to roles that were dropped or renamed since.
delete from livedex.collection_access a
 where not exists (select from pg_roles r where r.rolname = a.role and r.oid = a.role_oid)

-- name: allow
insert into livedex.collection_access (collection_id, role) values (%(collection_id)s, %(role)s) on conflict do nothing

-- name: forbid
delete from livedex.collection_access where collection_id = %(collection_id)s and role = %(role)s

-- name: others
select count(*) from livedex.collection_access where role = %(role)s

-- name: member
grant livedex_search to {role}

-- name: inheriting_member
-- Since Postgres 16 a membership says whether its rights are there without SET ROLE.
grant livedex_search to {role} with inherit true

-- name: no_member
revoke livedex_search from {role}
