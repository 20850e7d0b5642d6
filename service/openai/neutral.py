"""Fields of OpenAI's that are not implemented: taken where they ask for nothing, refused by name elsewhere.

Clients send some of them always, and mean nothing by it.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Neutral:
    """Annotates a field that may only be left out, or have one of `values`, which change no answer."""

    values: tuple[Any, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": list(self.values)}

    def _check(self, value: Any) -> Any:
        # To Python, 1 is in (False, True).
        if not any(value == each and type(value) is type(each) for each in self.values):
            raise ValueError("not supported; leave it out")
        return value


Nothing = Annotated[Any, Neutral(([],))]
NoSuffix = Annotated[Any, Neutral(("",))]
NoChoice = Annotated[Any, Neutral(("none", "auto"))]
EitherWay = Annotated[Any, Neutral((False, True))]
OnlyText = Annotated[Any, Neutral((["text"],))]
NoThinking = Annotated[Any, Neutral(("none",))]
