-- Run once, on an empty data folder. Dagster's storage and the tick tables have a database each: both keep an
-- alembic_version of their own.
CREATE DATABASE dagster;
