"""Many members trained, each by a command of its own, so that one that fails takes no other with it.

Ctrl-C reaches every command, and each saves its checkpoint. What a command prints comes out whole, in the
order in which they end.
"""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed


def train_all(names: Sequence[str], jobs: int, options: Sequence[str]) -> list[str]:
    """Run `modelpress train NAME` for every name, `jobs` at a time; the names of those that failed."""
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_train, name, options): name for name in names}
        for done in as_completed(running):
            finished = done.result()
            sys.stdout.write(finished.stdout)
            sys.stderr.write(finished.stderr)
            sys.stdout.flush()
            if finished.returncode:
                failed.append(running[done])
    return failed


def _train(name: str, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelpress", "train", name, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)
