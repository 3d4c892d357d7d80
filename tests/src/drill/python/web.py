"""The web applications of the drills: GET /JOB/KIND/MS does a job and answers when it is done."""

import jobs


def parts(path):
    job, kind, ms = path.strip("/").split("/")
    return int(job), kind, int(ms)


def wsgi(environ, start_response):
    jobs.run(*parts(environ["PATH_INFO"]))
    start_response("200 OK", [("Content-Length", "5")])
    return [b"done\n"]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await jobs.run_async(*parts(scope["path"]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"done\n"})
