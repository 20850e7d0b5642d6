"""Looks after the models once a second: replaces what hangs, and brings the process's figures up to date."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import psutil

from service import metrics
from service.engine import Engine

if TYPE_CHECKING:
    from service.served import Served

logger = logging.getLogger("modelpress.service")

SECONDS = 1.0


async def watch(models: Callable[[], Sequence["Served"]], stall: float) -> None:
    """Until cancelled: restart each model that has not moved for `stall` seconds, or is out of order."""
    process, cpu = psutil.Process(), 0.0
    while True:
        cpu = _measure(process, cpu)
        await asyncio.sleep(min(SECONDS, stall))
        for model in models():
            if model.stuck_for() > stall:
                logger.error("%s has not moved for %.0f s and is restarted", model.manifest.tag, stall)
                model.restart()
            elif isinstance(model, Engine) and model.failed_for() > stall:
                model.restart()


def _measure(process: psutil.Process, before: float) -> float:
    """Write the process's memory and processor time down; the latter is what comes next as `before`."""
    metrics.RESIDENT_BYTES.set(process.memory_info().rss)
    metrics.TASKS.set(len(asyncio.all_tasks()))
    times = process.cpu_times()
    now = times.user + times.system
    metrics.CPU_SECONDS.inc(now - before)
    return float(now)
