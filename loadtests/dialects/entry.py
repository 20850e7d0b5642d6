"""What every entry of a mix may say, whichever dialect it speaks: how often, and how its clients behave."""

from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from loadtests.config import Config, complaint

Share = Field(gt=0, le=1)


class Cancel(Config):
    """This share of the clients closes the connection `after` seconds, answered or not."""

    share: float = Share
    after: NonNegativeFloat = 0.5


class Slow(Config):
    """This share of the clients reads no faster than `bytes_per_s`."""

    share: float = Share
    bytes_per_s: PositiveInt = 1024


class Entry(Config):
    """One kind of request. Clients that leave or dawdle load the server and count in no percentile."""

    weight: PositiveFloat = 1.0
    cancel: Cancel | None = None
    slow: Slow | None = None

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if sum(part.share for part in (self.cancel, self.slow) if part) > 1:
            raise complaint("cancel and slow together are more than all requests", at=("slow", "share"))
        return self
