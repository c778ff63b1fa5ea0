-- Run once, on an empty data folder, by the superuser `postgres`, as whom nothing else logs in.
-- Dagster's storage and the tick tables have a database each: both keep an alembic_version of their own.
\set ON_ERROR_STOP on
\getenv owner_password POSTGRES_OWNER_PASSWORD
\getenv pipeline_password POSTGRES_PIPELINE_PASSWORD

-- The groups that `arb postgres roles` grants to.
CREATE ROLE arb_writer NOLOGIN;
CREATE ROLE arb_reader NOLOGIN;

-- Migrates, grants, drops old days.
CREATE ROLE owner LOGIN PASSWORD :'owner_password';
CREATE DATABASE arb OWNER owner;

-- Captures, pipeline and Dagster: writes rows of the tick tables, and has Dagster's database to itself.
CREATE ROLE pipeline LOGIN PASSWORD :'pipeline_password' IN ROLE arb_writer;
CREATE DATABASE dagster OWNER pipeline;
