"""Runs one job: waits its turn, starts the command, keeps it within its share of the CPU, notes how it ended.

`python -m service.jobs.runner FOLDER` in a session of its own, so that it outlives the server. The share is
held in three ways: the command may use only as many cores, at the lowest priority, and is stopped for moments
whenever it has had more CPU time than its share. Where memory runs out, the kernel is told to take it first.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from types import FrameType

import psutil

from service.jobs.job import Ask, Job

TICK_SECONDS = 0.1
# How much unused time a command may save up: a pause while it reads does not pay for minutes of full speed.
BURST_SECONDS = 1.0
# After this it is killed: a stage that is interrupted leaves nothing half done either way.
CANCEL_SECONDS = 10.0
LOCK = ".running"
# From linux/prctl.h: the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


def run(job: Job) -> int:
    """The whole life of a job; the command's exit code."""
    signal.signal(signal.SIGTERM, _cancel)
    code = 1
    try:
        with _turn(job.folder.parent):
            job.write("begun", "")
            code = _command(job, job.ask)
    except KeyboardInterrupt:
        job.write("cancelled", "")
    finally:
        job.write("exit", str(code))
    return code


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One job at a time; the lock is the kernel's, so that no death leaves it taken."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _command(job: Job, ask: Ask) -> int:
    with job.path("log").open("wb") as log, job.path(".result").open("wb") as result:
        child = subprocess.Popen(
            # -P: nothing in the inputs' folder is ever imported.
            [sys.executable, "-P", "-m", "modelpress", "compress", str(job.path("recipe.yaml")), "--json"]
            + ["--out", str(job.path("out"))]
            + (["--force"] if ask.force else []),
            cwd=ask.inputs,
            env=_environment(ask),
            stdin=subprocess.DEVNULL,
            stdout=result,
            stderr=log,
            process_group=0,
            preexec_fn=lambda: _yield_to_others(ask.cores),
        )
        try:
            code = _within_share(child, ask.cores)
        except KeyboardInterrupt:
            _end(child)
            raise
    job.path(".result").replace(job.path("result.json"))
    return code


def _environment(ask: Ask) -> dict[str, str]:
    threads = str(max(1, ceil(ask.cores)))
    # A name that is no folder here must not become a download.
    offline = {"HF_HUB_OFFLINE": "1", "BENTOML_DO_NOT_TRACK": "True"}
    # The command runs in the inputs' folder, wherever this package was found.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        **offline,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }


def _yield_to_others(cores: float) -> None:
    """In the child, before it becomes the command: fewer cores, the lowest priority, first to be killed."""
    # Without its runner nobody holds it to its share, and the next job would run beside it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[-max(1, ceil(cores)) :])
    os.nice(19)
    # In a session of its own niceness counts only within it, unless the session itself is nice.
    for name, value in (("autogroup", "19"), ("oom_score_adj", "1000")):
        with suppress(OSError):
            Path("/proc/self", name).write_text(value)


def _within_share(child: "subprocess.Popen[bytes]", cores: float) -> int:
    """Wait for the command's end, stopping it whenever it is ahead of its share. Its exit code."""
    credit, used, last, stopped = BURST_SECONDS, 0.0, time.monotonic(), False
    while child.poll() is None:
        time.sleep(TICK_SECONDS)
        now, used_now = time.monotonic(), max(used, _cpu_seconds(child.pid))
        credit = min(BURST_SECONDS, credit + cores * (now - last)) - (used_now - used)
        last, used = now, used_now
        if stopped != (credit < 0):
            stopped = not stopped
            _signal(child, signal.SIGSTOP if stopped else signal.SIGCONT)
    return child.returncode


def _cpu_seconds(pid: int) -> float:
    """CPU time so far of a process and of its children that have ended."""
    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _end(child: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGINT, signal.SIGCONT):
        _signal(child, number)
    try:
        child.wait(CANCEL_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _cancel(number: int, frame: FrameType | None) -> None:
    # A second signal must not interrupt the ending.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run(Job(Path(sys.argv[1]))))
