"""Capture: one Dagster run per hour and shard, kept alive by a sensor."""
