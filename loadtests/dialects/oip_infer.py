"""The Open Inference Protocol (KServe v2) over REST: `POST /v2/models/{name}/infer` with JSON tensors.

Tensors are given in the scenario or generated from a seed. Several different ones are made before the run,
so that a server that caches answers is not measured by its cache. Binary tensors are not spoken here: JSON
is what the protocol requires of every server.
"""

import json
import math
from functools import partial
from typing import Any, Literal, Self
from urllib.parse import quote

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from loadtests.config import Config, complaint
from loadtests.dialects.exchange import Answer, Call, WholeBody, excerpt, parse_object
from loadtests.errors import BadAnswer

FLOATS = ("FP16", "FP32", "FP64")

# Enough digits for an FP16; more would only lengthen the body.
DECIMALS = 4


class Tensor(Config):
    """An input: its data flat and row-major, or, when there is none, generated uniformly in [low, high).

    `high` is 1 for floating point and, for integers, 2: bits, which any embedding table and mask can take.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    datatype: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "BYTES",
    ] = "FP32"
    data: tuple[bool | int | float | str, ...] | None = None
    low: float = 0
    high: float | None = None
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.data is None and self.datatype == "BYTES":
            raise complaint("BYTES cannot be generated; give data", at=("datatype",))
        if self.data is not None and len(self.data) != math.prod(self.shape):
            raise complaint(f"{len(self.data)} values do not fill shape {list(self.shape)}", at=("data",))
        return self


class InferRequest(Config):
    """One entry of the mix. `variants` is how many different bodies are made of generated inputs."""

    dialect: Literal["oip-infer"]
    weight: PositiveFloat = 1.0
    model: str
    inputs: tuple[Tensor, ...] = Field(min_length=1)
    variants: PositiveInt = 16

    @property
    def target(self) -> str:
        return self.model


def calls(request: InferRequest) -> list[Call]:
    """One call for each variant; a single one when nothing is generated."""
    generated = any(tensor.data is None for tensor in request.inputs)
    path = f"/v2/models/{quote(request.model)}/infer"
    return [
        Call("POST", path, json.dumps(body(request, variant)).encode(), partial(WholeBody, check_outputs))
        for variant in range(request.variants if generated else 1)
    ]


def body(request: InferRequest, variant: int) -> dict[str, Any]:
    """The request's JSON."""
    inputs = [
        {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "data": generate(tensor, variant) if tensor.data is None else tensor.data,
        }
        for tensor in request.inputs
    ]
    return {"inputs": inputs}


def generate(tensor: Tensor, variant: int) -> list[float] | list[int] | list[bool]:
    """Uniform values for the tensor's type, the same for the same seed and variant."""
    generator = np.random.default_rng([tensor.seed, variant])
    size = math.prod(tensor.shape)
    if tensor.datatype in FLOATS:
        high = 1.0 if tensor.high is None else tensor.high
        return [round(value, DECIMALS) for value in generator.uniform(tensor.low, high, size).tolist()]
    integers = generator.integers(int(tensor.low), 2 if tensor.high is None else int(tensor.high), size)
    return [bool(value) for value in integers] if tensor.datatype == "BOOL" else integers.tolist()


def check_outputs(text: bytes) -> Answer:
    """An answer must hold at least one named output."""
    match parse_object(text):
        case {"outputs": [{"name": str()}, *_]}:
            return Answer()
    raise BadAnswer("bad_body", f"no outputs in the answer: {excerpt(text)}")
