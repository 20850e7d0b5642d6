"""The base of every configuration object: frozen, and strict about keys it does not know.

A misspelt key that is silently ignored is a run with the wrong load, so it is refused and the nearest valid
key is named. Finding the line in the file is `locate.py`'s work; this module knows nothing of files.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Config(BaseModel):
    """A frozen configuration object."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                raise complaint(f"unknown key '{key}'; {suggest(str(key), cls.model_fields)}", at=(key,))
        return values


def complaint(message: str, at: tuple[str, ...]) -> PydanticCustomError:
    """A validation error that knows which keys, below the object being validated, it is about."""
    return PydanticCustomError("complaint", "{message}", {"message": message, "at": at})


def suggest(word: str, valid: Iterable[str]) -> str:
    """What to write instead of `word`: the nearest valid name, or all of them."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(word, names, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else f"valid are {', '.join(names)}"
