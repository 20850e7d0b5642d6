"""What an operator may set, from the environment: `MODELPRESS_` and the field's name in capitals.

Validated once, at start-up. The command line makes the same object from its options.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ServiceError

PREFIX = "MODELPRESS_"
# Separated by commas: a tag holds the colon of a search path, and a key may hold anything else.
LISTS = ("bundles", "speculate", "api_keys")
# More than any machine has cores. Each costs memory, and is waited for at the end.
MOST_THREADS = 1024


class Settings(BaseModel):
    """`bundles` are folders or BentoML tags; none means every bundle there is. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundles: tuple[str, ...] = ()
    aliases: Path | None = None
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    slots: int = Field(default=8, ge=1)
    kv_bytes: int | None = Field(default=None, ge=1)
    # What proposes tokens, the first that has an idea: see `service.proposers`.
    speculate: tuple[str, ...] = ()

    queue: int = Field(default=64, ge=0)
    queue_rows: int = Field(default=1024, ge=1)
    queue_tokens: int = Field(default=2**17, ge=1)
    max_rows: int = Field(default=1024, ge=1)
    max_body_bytes: int = Field(default=32 * 2**20, ge=1)
    max_pixels: int | None = Field(default=None, ge=1)
    timeout: float = Field(default=60, gt=0)
    grace: float = Field(default=10, ge=0)
    stall: float = Field(default=30, gt=0)

    # Plain keys: never shown by repr, and hashed as soon as they are read.
    api_keys: tuple[str, ...] = Field(default=(), repr=False)
    keys_file: Path | None = None
    key_concurrency: int | None = Field(default=None, ge=1)
    key_rate: float | None = Field(default=None, gt=0)
    allow_public: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    access_log: bool = True

    home: Path = Field(default_factory=lambda: Path.home() / ".cache" / "modelpress")
    adapters: Path | None = None
    jobs: bool = False
    jobs_share: float = Field(default=0.5, gt=0, le=1)
    jobs_inputs: Path | None = None

    # Where workers tell each other of changes; the supervisor sets it.
    shared: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment. Raises ServiceError naming the variable that does not fit."""
        found: dict[str, object] = {
            name: environment[PREFIX + name.upper()]
            for name in cls.model_fields
            if _is_set(name, environment)
        }
        for name in LISTS:
            parts = str(found.pop(name, "")).split(",")
            found[name] = tuple(part.strip() for part in parts if part.strip())
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise ServiceError(f"{name}={first['input']}: {first['msg']}; change or unset it") from None


def _is_set(name: str, environment: Mapping[str, str]) -> bool:
    return bool(environment.get(PREFIX + name.upper()))
