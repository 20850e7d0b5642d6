"""`/jobs`: a recipe in; progress, log, cancellation and the resulting bundles out."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from service.body import Body, parse
from service.errors import InvalidRequest, JobsUnavailable, UnknownJob
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.recipe import MAX_BYTES

# As JSON a recipe is longer: each character may be escaped.
MAX_BODY = 8 * MAX_BYTES


class Submission(Body):
    """The body of `POST /jobs`: the recipe as YAML text or as an object. `force` publishes whatever comes."""

    recipe: str | dict[str, Any]
    force: bool = False

    def text(self) -> str:
        """The recipe as YAML."""
        return self.recipe if isinstance(self.recipe, str) else yaml.safe_dump(self.recipe, sort_keys=False)


async def submit(request: Request) -> JSONResponse:
    """`POST /jobs`: JSON, or a recipe file as it is."""
    jobs, submission = (
        _jobs(request),
        _submission(await request.body(), request.headers.get("content-type", "")),
    )
    job = await asyncio.to_thread(lambda: jobs.submit(submission.text(), force=submission.force))
    return JSONResponse(_described(job), 202, {"Location": f"/jobs/{job.id}"})


async def listing(request: Request) -> JSONResponse:
    """`GET /jobs`, newest first."""
    jobs = _jobs(request)
    jobs.check_available()
    return JSONResponse({"jobs": await asyncio.to_thread(lambda: list(_listed(jobs)))})


async def status(request: Request) -> JSONResponse:
    """`GET /jobs/{id}`, with what was measured once it has succeeded."""
    job = await _find(request)
    return JSONResponse({**_described(job), "result": job.result()})


async def log(request: Request) -> PlainTextResponse:
    """`GET /jobs/{id}/log`."""
    return PlainTextResponse((await _find(request)).log())


async def bundle(request: Request) -> FileResponse:
    """`GET /jobs/{id}/bundle`: the bundles' folders as a tar file."""
    job = await _find(request)
    path = await asyncio.to_thread(_jobs(request).archive, job)
    return FileResponse(path, media_type="application/x-tar", filename=f"{job.id}.tar")


async def cancel(request: Request) -> JSONResponse:
    """`POST /jobs/{id}/cancel`."""
    job = await _find(request)
    _jobs(request).cancel(job)
    return JSONResponse(_described(job))


async def remove(request: Request) -> Response:
    """`DELETE /jobs/{id}`."""
    job = await _find(request)
    await asyncio.to_thread(_jobs(request).remove, job)
    return Response(status_code=204)


def _jobs(request: Request) -> Jobs:
    jobs: Jobs | None = request.app.state.jobs
    if jobs is None:
        raise JobsUnavailable("this server compresses nothing")
    return jobs


async def _find(request: Request) -> Job:
    return await asyncio.to_thread(_jobs(request).find, request.path_params["id"])


def _listed(jobs: Jobs) -> Iterator[dict[str, Any]]:
    for job in jobs.all():
        with suppress(UnknownJob):
            yield _described(job)


def _described(job: Job) -> dict[str, Any]:
    return job.status().model_dump()


def _submission(body: bytes, content_type: str) -> Submission:
    if len(body) > MAX_BODY:
        raise InvalidRequest(f"recipe: over {MAX_BYTES:,} bytes; a recipe is a page of YAML", "recipe")
    if content_type.startswith("application/json") or body.lstrip()[:1] == b"{":
        return parse(body, Submission)
    try:
        return Submission(recipe=body.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("recipe: not UTF-8; send YAML text", "recipe") from None


routes = [
    Route("/jobs", submit, methods=["POST"]),
    Route("/jobs", listing),
    Route("/jobs/{id}", status),
    Route("/jobs/{id}", remove, methods=["DELETE"]),
    Route("/jobs/{id}/log", log),
    Route("/jobs/{id}/bundle", bundle),
    Route("/jobs/{id}/cancel", cancel, methods=["POST"]),
]
