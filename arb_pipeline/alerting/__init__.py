"""Alerts: rules in YAML, the state machines that decide when to tell, and the one notifier that tells.

``docs/alerts.md`` is for people who write rules. What evaluates them lives above this room:
``arb_pipeline.live_alerts`` beside a capture, ``arb_pipeline.table_alerts`` over the tables.
"""

from arb_pipeline.alerting.alert import Alert

__all__ = ["Alert"]
