"""A name for whatever serves it: one model or several by weight, with a shadow and a fallback.

    {"digits": {"targets": [{"model": "lenet5-int8-static", "weight": 9}, {"model": "lenet5-fp32"}],
                "shadow": {"model": "lenet5-int4", "share": 0.1},
                "fallback": {"model": "lenet5-int4", "above": 0.5}}}

A shadow answers a share of the requests a second time, unseen, and its agreement is counted. A fallback
answers instead while the chosen model's queue is fuller than `above`. It knows names only; the catalog
knows the models.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.errors import ServiceError


class _Frozen(BaseModel):
    # An infinite weight would be answered with, and no JSON holds it.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(_Frozen):
    """A model, `tag` or `tag:version`, and its share of the requests beside the other targets'."""

    model: str
    weight: float = Field(default=1, ge=0)


class Shadow(_Frozen):
    """A model to compare with, and the share of the requests that are."""

    model: str
    share: float = Field(default=1, gt=0, le=1)


class Fallback(_Frozen):
    """A cheaper model, and how full the first one's queue may be, from 0 to 1."""

    model: str
    above: float = Field(default=0.8, ge=0, le=1)


class Alias(_Frozen):
    """What a name stands for."""

    targets: tuple[Target, ...] = Field(min_length=1)
    shadow: Shadow | None = None
    fallback: Fallback | None = None

    @property
    def models(self) -> set[str]:
        """Every model that is named."""
        others = [each.model for each in (self.shadow, self.fallback) if each]
        return {*others, *(target.model for target in self.targets)}


def choose(
    targets: Sequence[Target], usable: Callable[[str], bool], draw: Callable[[], float] = random.random
) -> str:
    """A target's model by weight among the usable ones; the first target where none is."""
    open_ = [target for target in targets if target.weight and usable(target.model)]
    point = draw() * sum(target.weight for target in open_)
    for target in open_:
        point -= target.weight
        if point < 0:
            return target.model
    return (open_[-1] if open_ else targets[0]).model


_FILE = TypeAdapter(dict[str, Alias])


def read_aliases(path: Path | None) -> dict[str, Alias]:
    """The aliases of a JSON file. Raises ServiceError saying where it is wrong."""
    if path is None:
        return {}
    try:
        return _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise ServiceError(
            f"{path}: the aliases cannot be read: {error.strerror}; name another file"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ServiceError(f"{path}: {where}: {first['msg']}; see docs/service.md") from None
