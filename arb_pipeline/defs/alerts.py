"""The sensor that evaluates the rules of alerts over the tables. It is off until switched on."""

import dagster as dg

from arb_pipeline.settings import Settings

__all__ = ["ALERTS_SENSOR", "ALERTS_SENSOR_S", "alert_sensor"]

ALERTS_SENSOR = "alerts_from_tables"
ALERTS_SENSOR_S = 30
_LAST_WAIT_S = 20.0
"""Well below what Dagster gives a sensor for one look."""


def alert_sensor() -> dg.SensorDefinition:
    """Looks at the tables and at the captures' heartbeats, and tells what rules ask for; it launches nothing."""

    @dg.sensor(
        name=ALERTS_SENSOR,
        minimum_interval_seconds=ALERTS_SENSOR_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Tells what the rules of ARB_ALERTS_FILE ask for over the tables: captures that stalled, gaps, and rules "
            "with 'over: tables'. What was told stands in its cursor: reset that to be told again."
        ),
    )
    def alerts_from_tables(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from arb_pipeline.alerting.notifier import build_notifier
        from arb_pipeline.alerting.rules import AlertError
        from arb_pipeline.storage.lake import Lake
        from arb_pipeline.table_alerts import look_at_tables

        settings = Settings()
        try:
            look = look_at_tables(settings, Lake(settings.lake, settings.exchange_name), context.cursor or "")
        except AlertError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        for trouble in look.troubles:
            context.log.error("%s", trouble)
        if look.alerts:
            webhook = settings.alert_webhook_url
            notifier = build_notifier(settings.alerts_file, webhook.get_secret_value() if webhook else "")
            for alert in look.alerts:
                context.log.warning("%s", alert.message)
                notifier.send(alert)
            notifier.close(_LAST_WAIT_S)
            if notifier.undelivered:
                context.log.error("%d deliveries of alerts failed: see the daemon's log", notifier.undelivered)
        return dg.SensorResult(skip_reason=f"{len(look.alerts)} alerts", cursor=look.cursor)

    return alerts_from_tables
