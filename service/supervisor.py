"""`modelpress serve --workers N`: N processes on one listening socket, and a parent that keeps them alive.

The kernel hands each connection to a worker that lives, so nobody asks a dead one. A worker that dies is
replaced, after a pause if it died young. What it held is lost, and those clients see their connection
break. The parent loads no model and answers no request. Each worker holds the models in its own memory, and
its share of the cores.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from types import FrameType

from runtime.session import available_cores
from service import journal
from service.errors import ServiceError
from service.settings import PREFIX, Settings

# A worker that dies younger is started again only after a pause, which doubles up to the longest.
YOUNG_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# Looking costs microseconds; a dead worker is replaced this soon.
LOOK_SECONDS = 0.1
# What a worker may take for its last words after the grace period.
MARGIN_SECONDS = 10.0


@dataclass(slots=True)
class _Worker:
    """One place among the workers: the process that fills it now, and when it may be filled again."""

    process: "subprocess.Popen[bytes]"
    started: float = field(default_factory=monotonic)
    pause: float = 0.0
    again: float = 0.0


class Supervisor:
    """Keeps `count` workers on `listener`. `serve` returns after SIGTERM or SIGINT."""

    def __init__(self, listener: socket.socket, count: int, settings: Settings) -> None:
        self._listener, self._count, self._settings = listener, count, settings
        self._asked_to_stop = False
        self._folder = Path(tempfile.mkdtemp(prefix="modelpress-workers-"))
        self._shared = self._folder / "shared"
        self._shared.mkdir()

    def serve(self, announce: Callable[[str], None]) -> None:
        """Start the workers, `announce` what the first one says when it is ready, keep them until a signal.

        Raises ServiceError where the first one cannot start.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            with self._first() as first:
                announce(_greeting(first))
                self._keep([_Worker(first), *(_Worker(self._spawn()) for _ in range(self._count - 1))])
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def _first(self) -> Iterator["subprocess.Popen[bytes]"]:
        process = self._spawn(stdout=subprocess.PIPE)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _keep(self, workers: list[_Worker]) -> None:
        while not self._asked_to_stop:
            for worker in workers:
                if worker.process.poll() is not None:
                    self._replace(worker)
            sleep(LOOK_SECONDS)
        self._end([worker.process for worker in workers])

    def _replace(self, worker: _Worker) -> None:
        now = monotonic()
        if not worker.again:
            self._bury(worker.process)
            young = now - worker.started < YOUNG_SECONDS
            worker.pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * worker.pause)) if young else 0.0
            worker.again = now + worker.pause
            _say(f"worker {worker.process.pid} ended with {worker.process.returncode}; starting another")
        if now >= worker.again:
            worker.process, worker.started, worker.again = self._spawn(), now, 0.0

    def _bury(self, process: "subprocess.Popen[bytes]") -> None:
        """Take a dead worker's gauges out of the sums; what it counted stays counted."""
        for path in self._folder.glob(f"gauge_live*_{process.pid}.db"):
            path.unlink(missing_ok=True)
        journal.forget(self._shared, process.pid)

    def _spawn(self, stdout: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        number = self._listener.fileno()
        threads = self._settings.threads or max(1, available_cores() // self._count)
        environment = os.environ | {
            "PROMETHEUS_MULTIPROC_DIR": str(self._folder),
            f"{PREFIX}THREADS": str(threads),
            f"{PREFIX}SHARED": str(self._shared),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "service.worker", str(number)],
            env=environment,
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            # A terminal's Ctrl-C reaches the whole group: the workers are told by us, once.
            start_new_session=True,
        )

    def _end(self, processes: "list[subprocess.Popen[bytes]]") -> None:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        until = monotonic() + self._settings.grace + MARGIN_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, until - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_stop = True


def _greeting(process: "subprocess.Popen[bytes]") -> str:
    """The first worker's only line: what is served. Raises where it ends without."""
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    if not line:
        code = process.wait()
        if code == 0:
            raise SystemExit(0)
        raise ServiceError(f"the first worker ended with {code}; the line above says why")
    return line


def _say(message: str) -> None:
    print(f"modelpress: {message}", file=sys.stderr, flush=True)
