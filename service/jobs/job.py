"""One job's folder: what was asked, what became of it, and how it is doing now, told from its files.

    job.json      what was asked, written once
    recipe.yaml   the recipe
    runner.json   the runner's process
    begun         there since the job has the machine (it waits its turn before)
    cancelled     there since somebody cancelled it
    log           what the command says while it works
    result.json   what the command printed: the published bundles
    exit          the command's exit code; there once the job is over
    out/          the bundles as folders

Nothing is kept in memory and every file is written whole, so a reader in any process sees the truth.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict

from service.errors import UnknownJob

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
LIVE: tuple[State, ...] = ("queued", "running")

# The kernel's own resolution of when a process began.
_TICK_SECONDS = 0.01


class Ask(BaseModel):
    """What was asked. `cores` is the share of the machine that the job may have, in cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    created: float
    force: bool
    cores: float
    inputs: str


class JobStatus(BaseModel):
    """How a job is doing. `progress` is the log's last line; `error` says why it failed."""

    id: str
    state: State
    created: float
    seconds: float | None
    progress: str
    error: str | None
    bundles: list[str]


@dataclass(frozen=True, slots=True)
class Job:
    """A job's folder, read anew at every question."""

    folder: Path

    @property
    def id(self) -> str:
        """The job's name."""
        return self.folder.name

    @property
    def ask(self) -> Ask:
        """What was asked. Raises UnknownJob for one that is thrown away meanwhile."""
        try:
            return Ask.model_validate_json(self.path("job.json").read_bytes())
        except FileNotFoundError:
            raise UnknownJob(f"no job '{self.id}'; GET /jobs lists them") from None

    def path(self, name: str) -> Path:
        """One of the files."""
        return self.folder / name

    def write(self, name: str, content: str) -> None:
        """Put a file there, whole."""
        staging = self.path(f".{name}.{os.getpid()}")
        staging.write_text(content)
        staging.replace(self.path(name))

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return self.path(name).exists()

    def state(self) -> State:
        """From what its files say, and whether its process lives."""
        # Asked first: a runner that ends in between has written its exit code by then.
        alive = self.runner() is not None
        if self.has("exit"):
            ended: State = "succeeded" if self.path("exit").read_text() == "0" else "failed"
            return "cancelled" if self.has("cancelled") and ended == "failed" else ended
        if not alive:
            return "cancelled" if self.has("cancelled") else "interrupted"
        return "running" if self.has("begun") else "queued"

    def runner(self) -> psutil.Process | None:
        """The living process of the job's runner, and not another one that got its number."""
        try:
            recorded = json.loads(self.path("runner.json").read_bytes())
            process = psutil.Process(recorded["pid"])
            same = abs(since_boot(process) - recorded["since_boot"]) < _TICK_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, KeyError, psutil.Error):  # no file, an older version's, no process
            return None

    def log(self) -> str:
        """All that the command has said so far."""
        try:
            return self.path("log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def result(self) -> list[dict[str, Any]]:
        """The rows that the command printed, one for a recipe; nothing before it is over."""
        try:
            rows = json.loads(self.path("result.json").read_bytes())
        except (OSError, ValueError):
            return []
        return rows if isinstance(rows, list) else []

    def status(self) -> JobStatus:
        """How it is doing. Raises UnknownJob."""
        state, lines = self.state(), [line.strip() for line in self.log().splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        progress = lines[-1] if lines else ""
        return JobStatus(
            id=self.id,
            state=state,
            created=self.ask.created,
            seconds=self._seconds(),
            progress=progress,
            error=(errors[-1] if errors else progress) if state == "failed" else None,
            bundles=[row["tag"] for row in self.result() if row.get("tag")],
        )

    def _seconds(self) -> float | None:
        """How long it worked, once it is over."""
        try:
            return self.path("exit").stat().st_mtime - self.path("begun").stat().st_mtime
        except FileNotFoundError:
            return None


def since_boot(process: psutil.Process) -> float:
    """When a process began, in seconds since the machine did: the time of day may be set while it runs."""
    return float(process.create_time() - psutil.boot_time())
