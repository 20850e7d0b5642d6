"""What every part of a manifest is made of: value objects and the names of files."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class Frozen(BaseModel):
    """A value object: immutable, and strict about its keys.

    A field that is added to one is left out of its JSON, and so of the hash, where it has its default:
    bundles made before there was such a field stay whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
