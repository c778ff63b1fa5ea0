"""Settings of the Celery workers, found by ``celery -A dagster_celery.app worker`` on its path."""

import os

broker_url = os.environ["DAGSTER_CELERY_BROKER_URL"]
result_backend = os.environ["DAGSTER_CELERY_BACKEND_URL"]

# A run is taken only by a worker that starts it now: one that waits behind an hour of capture would be lost to all
# others, and be handed out a second time when the broker's visibility timeout is over.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True

# A process that has loaded the project starts a run in a moment; now and then a new one gives back what memory it took.
worker_max_tasks_per_child = 20

broker_connection_retry_on_startup = True
