-- migrate:up
-- Which encoder wrote a generation, and what it gave for a few fixed texts: others may write to it if they give the same.
set local role livedex_owner;

alter table livedex.generation
  add column precision text not null default 'f32',
  add column probe bytea;

reset role;
