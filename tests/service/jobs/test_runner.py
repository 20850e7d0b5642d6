"""A job's process: its share of the CPU."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

from service.jobs.runner import BURST_SECONDS, _within_share


def test_a_command_gets_its_share_of_the_cpu_and_no_more():
    spin = "import time\nwhile time.process_time() < 1.6: pass"
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", spin], process_group=0)
    assert _within_share(child, 0.25) == 0
    # What it may save up is free; the rest takes four times as long as it would.
    assert time.monotonic() - started > (1.6 - BURST_SECONDS) / 0.25 * 0.9


def test_a_command_dies_with_its_runner(eventually):
    runner = (
        "import os, signal, subprocess, sys\n"
        "from service.jobs.runner import _yield_to_others\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = subprocess.Popen(sleep, process_group=0, preexec_fn=lambda: _yield_to_others(1))\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", runner], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    number = int(done.stdout)
    try:
        eventually(lambda: not psutil.pid_exists(number) or _is_zombie(number))
    finally:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _is_zombie(number: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    return True


def test_the_exit_code_comes_through_and_nothing_stays_stopped():
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], process_group=0)
    assert _within_share(child, 0.01) == 3
    assert not psutil.pid_exists(child.pid)
