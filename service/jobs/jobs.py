"""All jobs: made, found, cancelled, thrown away. The only place that starts a runner."""

import json
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psutil

from runtime.session import available_cores
from service.errors import Conflict, JobsUnavailable, TooBusy, UnknownJob
from service.jobs.job import LIVE, Ask, Job, since_boot
from service.jobs.recipe import check_recipe
from service.settings import Settings

# Each one is a waiting process.
MAX_LIVE = 16


class Jobs:
    """The jobs below one folder. Several servers, or workers, may share it."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "jobs"
        self._settings = settings
        # Kept so that ended runners do not stay zombies while this server lives.
        self._runners: list[subprocess.Popen[bytes]] = []

    def check_available(self) -> None:
        """Raise JobsUnavailable where the operator does not allow jobs, or nothing here can compress."""
        if not self._settings.jobs:
            raise JobsUnavailable("compression jobs are switched off; the operator sets MODELPRESS_JOBS=1")
        # Looked for, not imported: torch must stay out of this process.
        if not (find_spec("modelpress") and find_spec("compress") and find_spec("torch")):
            raise JobsUnavailable("nothing here can compress; install 'modelpress[compress]' on the server")

    def submit(self, recipe: str, *, force: bool = False) -> Job:
        """Start a job. Raises InvalidRequest for a recipe that may not run here, TooBusy for one too many."""
        self.check_available()
        check_recipe(recipe)
        if sum(job.state() in LIVE for job in self.all()) >= MAX_LIVE:
            raise TooBusy(f"{MAX_LIVE} jobs run or wait already; cancel one, or try again later")
        job = self._make(recipe, force)
        self._runners.append(_start(job))
        return job

    def find(self, job_id: str) -> Job:
        """The job of that id. Raises UnknownJob."""
        self.check_available()
        # Compared, never joined to a path.
        for job in self.all():
            if job.id == job_id:
                return job
        raise UnknownJob(f"no job '{job_id}'; GET /jobs lists them")

    def all(self) -> list[Job]:
        """Every job, newest first."""
        self._runners = [runner for runner in self._runners if runner.poll() is None]
        if not self.folder.is_dir():
            return []
        created = {}
        for path in self.folder.iterdir():
            # One that is being made has no file yet, one that is thrown away is hidden.
            if not path.name.startswith(".") and (path / "job.json").is_file():
                with suppress(UnknownJob):
                    created[Job(path)] = Job(path).ask.created
        return sorted(created, key=lambda job: created[job], reverse=True)

    def cancel(self, job: Job) -> None:
        """Ask a job to end; it does so within seconds. One that is over stays as it is."""
        if (runner := job.runner()) and not job.has("exit"):
            job.write("cancelled", "")
            runner.terminate()

    def remove(self, job: Job) -> None:
        """Throw away an ended job's files; what it published stays.

        Raises Conflict for one that runs, UnknownJob for one that somebody else throws away.
        """
        if job.state() in LIVE:
            raise Conflict(f"job '{job.id}' is not over; cancel it first")
        hidden = job.folder.with_name(f".{job.id}")
        try:
            # At once, and then file by file: nobody is to find half a job.
            job.folder.rename(hidden)
        except FileNotFoundError:
            raise UnknownJob(f"no job '{job.id}'; GET /jobs lists them") from None
        shutil.rmtree(hidden)

    def archive(self, job: Job) -> Path:
        """A tar file of the bundles that a job made. Raises Conflict where it has not succeeded."""
        if job.state() != "succeeded":
            raise Conflict(f"job '{job.id}' is {job.state()}; only one that succeeded has a bundle")
        target, staging = job.path("bundle.tar"), job.path(f".bundle.{uuid4().hex}")
        if not target.exists():
            with tarfile.open(staging, "w") as archive:
                archive.add(job.path("out"), arcname=".")
            staging.replace(target)
        return target

    def _make(self, recipe: str, force: bool) -> Job:
        job = Job(self.folder / uuid4().hex[:16])
        inputs = self._settings.jobs_inputs or job.path("inputs")
        ask = Ask(
            id=job.id,
            created=time.time(),
            force=force,
            cores=self._settings.jobs_share * available_cores(),
            inputs=str(inputs.resolve()),
        )
        job.folder.mkdir(parents=True)
        job.path("inputs").mkdir()
        job.write("recipe.yaml", recipe)
        job.write("job.json", json.dumps(ask.model_dump()))
        return job


def _start(job: Job) -> "subprocess.Popen[bytes]":
    """The runner, in a session of its own: no signal to the server reaches it."""
    runner = subprocess.Popen(
        [sys.executable, "-m", "service.jobs.runner", str(job.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    began = since_boot(psutil.Process(runner.pid))
    job.write("runner.json", json.dumps({"pid": runner.pid, "since_boot": began}))
    return runner
