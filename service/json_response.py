"""JSON out, by orjson: numpy arrays as they are, and every NaN or infinity as null, which is all JSON has."""

from typing import Any

import orjson
from starlette.responses import JSONResponse


def dumps(value: Any) -> bytes:
    """`value` as JSON; C-contiguous numpy arrays of numbers may stand anywhere in it."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


class JsonResponse(JSONResponse):
    """A response whose content is `dumps(content)`."""

    def render(self, content: Any) -> bytes:
        return dumps(content)
