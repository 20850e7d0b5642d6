"""What an operator may set, from the environment: `MODELPRESS_` and the field's name in capitals.

Validated once, at start-up. The command line makes the same object from its options.
"""

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ServiceError

PREFIX = "MODELPRESS_"


class Settings(BaseModel):
    """`bundles` are folders or BentoML tags; none means every bundle there is.

    In MODELPRESS_BUNDLES they are separated by commas, because a tag holds the colon of a search path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundles: tuple[str, ...] = ()
    threads: int | None = Field(default=None, ge=1)
    slots: int = Field(default=8, ge=1)
    queue: int = Field(default=64, ge=0)
    max_body_bytes: int = Field(default=32 * 2**20, ge=1)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment. Raises ServiceError naming the variable that does not fit."""
        found = {
            name: environment[PREFIX + name.upper()]
            for name in cls.model_fields
            if _is_set(name, environment)
        }
        bundles = tuple(part.strip() for part in found.pop("bundles", "").split(",") if part.strip())
        try:
            return cls.model_validate({**found, "bundles": bundles})
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise ServiceError(f"{name}={first['input']}: {first['msg']}; change or unset it") from None


def _is_set(name: str, environment: Mapping[str, str]) -> bool:
    return bool(environment.get(PREFIX + name.upper()))
