"""Captures that are killed, that lose their Postgres, and that run for long, against an exchange of their own."""

from arb_pipeline_tests.endurance.killing import KillResult, kill_trial
from arb_pipeline_tests.endurance.postgres_stops import PostgresResult, postgres_trial
from arb_pipeline_tests.endurance.soaking import SoakResult, soak

__all__ = ["KillResult", "PostgresResult", "SoakResult", "kill_trial", "postgres_trial", "soak"]
