"""Hands jobs to a queue: reads a line "JOB KIND MS" for each. The first argument says to which: celery or rq."""

import os
import sys


def celery():
    from tasks import job

    return job.delay


def rq():
    import redis
    import rq

    queue = rq.Queue(os.environ["DRILL_TOKEN"], connection=redis.Redis("127.0.0.1", int(os.environ["DRILL_REDIS"])))
    return lambda *parts: queue.enqueue("jobs.run", *parts, result_ttl=1)


submit = {"celery": celery, "rq": rq}[sys.argv[1]]()
for line in sys.stdin:
    job, kind, ms = line.split()
    submit(int(job), kind, int(ms))
