"""The Celery application of the drills."""

import os

import celery
import jobs

app = celery.Celery("drill", broker=f"redis://127.0.0.1:{os.environ['DRILL_REDIS']}/0")
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)


@app.task
def job(*parts):
    jobs.run(*parts)
