"""What a recipe's `phases` step may say. No heavy import: recipes are read with it."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from compress.quantize.config import QuantizeConfig
from compress.step import StepConfig


class PhasesConfig(StepConfig):
    """Quantize a decoder in several ways and keep the fastest for each size of a call, as measured here.

    `graphs` are settings of the `quantize` step. Those that are kept take at most `max_size` times the
    float32 graph together; one more is kept only where it makes some size of call faster by `min_gain`.
    """

    method: Literal["phases"] = "phases"
    graphs: Annotated[tuple[QuantizeConfig, ...], Field(min_length=2)]
    max_size: float = Field(default=1.0, gt=0)
    min_gain: float = Field(default=0.2, ge=0)

    @field_validator("graphs")
    @classmethod
    def _distinct(cls, graphs: tuple[QuantizeConfig, ...]) -> tuple[QuantizeConfig, ...]:
        if len({graph.variant for graph in graphs}) < len(graphs):
            raise ValueError("two of the graphs are of one kind; name each scheme once")
        return graphs

    @property
    def variant(self) -> str:
        """The schemes that were candidates; which were kept, the figures say."""
        return "phases"
