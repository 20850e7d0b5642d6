"""A job's folder: its process is known whatever the clock says, and no reader finds half of it."""

import json
import os
from pathlib import Path

import psutil
import pytest

from service.errors import Conflict, UnknownJob
from service.jobs.job import Job, since_boot
from service.jobs.jobs import Jobs
from service.settings import Settings


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """Jobs below a folder of the test's own, which has one that is over and one that this process runs."""
    jobs = Jobs(Settings(home=tmp_path, jobs=True))
    for number, name in enumerate(("over", "running")):
        job = Job(jobs.folder / name)
        job.folder.mkdir(parents=True)
        ask = {"id": name, "created": number, "force": False, "cores": 1, "inputs": ""}
        job.write("job.json", json.dumps(ask))
        job.write("begun", "")
    Job(jobs.folder / "over").write("exit", "0")
    began = since_boot(psutil.Process())
    Job(jobs.folder / "running").write("runner.json", json.dumps({"pid": os.getpid(), "since_boot": began}))
    return jobs


def test_a_clock_that_is_set_loses_no_job(jobs, monkeypatch):
    running = jobs.find("running")
    assert running.state() == "running"
    # What the kernel says of a machine whose time of day was set an hour ahead.
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot + 3600)
    assert running.state() == "running"
    with pytest.raises(Conflict, match="cancel it first"):
        jobs.remove(running)


def test_another_process_of_that_number_is_not_the_jobs(jobs):
    running = jobs.find("running")
    for record in ({"pid": os.getpid(), "since_boot": 1.0}, {"pid": os.getpid(), "started": 1.0}):
        running.write("runner.json", json.dumps(record))
        assert running.state() == "interrupted"


def test_a_job_is_thrown_away_once_and_nobody_finds_half_of_it(jobs):
    first, second = jobs.find("over"), jobs.find("over")
    (first.folder / "out").mkdir()
    (first.folder / "out" / "model.onnx").write_bytes(b"")
    jobs.remove(first)
    with pytest.raises(UnknownJob):
        jobs.remove(second)
    with pytest.raises(UnknownJob):
        second.status()
    assert [job.id for job in jobs.all()] == ["running"]
    assert not list(jobs.folder.rglob("*model.onnx"))
