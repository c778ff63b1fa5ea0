"""Dagster: assets by group, checks beside their assets, jobs, schedules, sensors. Thin wiring, no computing."""
