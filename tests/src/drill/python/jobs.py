"""What a job of a drill does, and what it writes into the ledger. See tests/src/drill/mod.rs."""

import asyncio
import http.client
import os
import subprocess
import time

ledger = os.open(os.environ["DRILL_LEDGER"], os.O_WRONLY | os.O_APPEND)


def note(event, job):
    os.write(ledger, f"{event} {job} {os.getpid()} {os.getppid()} {time.monotonic_ns()}\n".encode())


def cpu(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def slow_http(seconds):
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["DRILL_HTTP"]))
    connection.request("GET", f"/{round(seconds * 1000)}")
    connection.getresponse().read()


def slow_db(seconds):
    import psycopg2

    database = psycopg2.connect(
        host="127.0.0.1", port=os.environ["DRILL_DB"], user="postgres", dbname="postgres", gssencmode="disable"
    )
    database.cursor().execute("select pg_sleep(%s)", (seconds,))
    database.close()


def child(seconds):
    subprocess.run([os.environ["DRILL_CHILD"], str(seconds)], check=True)


def lock(seconds, job):
    import redis

    redis.Redis("127.0.0.1", int(os.environ["DRILL_REDIS"])).blpop(f"lock:{job}", timeout=seconds)


def run(job, kind, ms):
    """The job, from its first line in the ledger to its last."""
    seconds = ms / 1000
    note("started", job)
    begin = time.monotonic()
    if kind == "lock":
        lock(seconds, job)
    else:
        {"cpu": cpu, "sleep": time.sleep, "http": slow_http, "db": slow_db, "child": child}[kind](seconds)
    note("ended" if time.monotonic() - begin >= 0.95 * seconds else "cut", job)


async def run_async(job, kind, ms):
    """The same for a server that awaits: what has no awaitable form here runs in a thread."""
    if kind not in ("sleep", "http", "child"):
        return await asyncio.to_thread(run, job, kind, ms)
    seconds = ms / 1000
    note("started", job)
    begin = time.monotonic()
    if kind == "sleep":
        await asyncio.sleep(seconds)
    elif kind == "http":
        reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["DRILL_HTTP"]))
        writer.write(f"GET /{ms} HTTP/1.1\r\n\r\n".encode())
        await reader.read()
        writer.close()
    else:
        await (await asyncio.create_subprocess_exec(os.environ["DRILL_CHILD"], str(seconds))).wait()
    note("ended" if time.monotonic() - begin >= 0.95 * seconds else "cut", job)
