"""A job's process: its share of the CPU."""

import subprocess
import sys
import time

import psutil

from service.jobs.runner import BURST_SECONDS, _within_share


def test_a_command_gets_its_share_of_the_cpu_and_no_more():
    spin = "import time\nwhile time.process_time() < 1.6: pass"
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", spin], process_group=0)
    assert _within_share(child, 0.25) == 0
    # What it may save up is free; the rest takes four times as long as it would.
    assert time.monotonic() - started > (1.6 - BURST_SECONDS) / 0.25 * 0.9


def test_the_exit_code_comes_through_and_nothing_stays_stopped():
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], process_group=0)
    assert _within_share(child, 0.01) == 3
    assert not psutil.pid_exists(child.pid)
