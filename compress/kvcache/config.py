"""What a recipe's `kv-cache` step may say. No heavy import: recipes are read with it."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer
from pydantic_core import PydanticCustomError

from compress.step import StepConfig

SHORT = {"float16": "kv16", "int8": "kv8"}


class KVCacheConfig(StepConfig):
    """The type that keys and values are stored in.

    `float16` needs nothing. `int8` takes a scale for each channel from `samples` windows of training data,
    which reaches `margin` times as far as what was seen there: more clips less and rounds more coarsely.
    """

    method: Literal["kv-cache"] = "kv-cache"
    dtype: Literal["float16", "int8"] = "float16"
    samples: int = Field(default=32, ge=1)
    margin: float = Field(default=1.1, ge=1)

    @field_validator("samples", "margin")
    @classmethod
    def _is_read(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("dtype") == "float16":
            raise PydanticCustomError("unread", "is read by 'dtype: int8' only; add it, or remove this")
        return value

    @model_serializer(mode="wrap")
    def _what_is_read(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What only int8 reads is no part of a lineage without it."""
        unread = {"samples", "margin"} if self.dtype == "float16" else set()
        return {name: value for name, value in serialize(self).items() if name not in unread}

    @property
    def variant(self) -> str:
        """As `kv16`."""
        return SHORT[self.dtype]
