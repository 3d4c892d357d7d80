"""An RQ worker whose name, and with it every title that it takes, begins with the drill's token."""

import os

import rq


class Worker(rq.Worker):
    def __init__(self, *args, name=None, **kwargs):
        super().__init__(*args, name=f"{os.environ['DRILL_TOKEN']}-{name or os.getpid()}", **kwargs)
