"""The Celery application of the drills."""

import os

import celery
import celery.signals
import jobs
from billiard.util import set_pdeathsig

app = celery.Celery("drill", broker=f"redis://127.0.0.1:{os.environ['DRILL_REDIS']}/0")
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)


if os.environ.get("DRILL_CHILDREN_STAY"):

    @celery.signals.worker_process_init.connect
    def stay(**_):
        """As before Celery 5.2: the kernel does not kill a child with its master (prefork.py, process_initializer)."""
        set_pdeathsig(0)


@app.task
def job(*parts):
    jobs.run(*parts)
