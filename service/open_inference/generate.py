"""A text model behind `infer`: BYTES in, BYTES out, any number of prompts in one tensor.

How to continue them is said by the request's `parameters`, whose names are those of `/v1/completions`. The
tensors' names are those of Triton's own vLLM backend.
"""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from runtime.errors import InputError
from runtime.processing import Array
from runtime.sampling import SamplingParams
from service.body import complaint
from service.completion import answers, complete, encode, requests
from service.disconnect import while_connected
from service.engine import Engine
from service.tensors import texts

TEXT_INPUT, TEXT_OUTPUT = "text_input", "text_output"


class GenerationParameters(BaseModel):
    """Scalars, as the protocol has them; others are ignored, as it wants it."""

    model_config = ConfigDict(strict=True)

    adapter: str | None = None
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = Field(default=None, ge=0)
    stop: str = ""

    def params(self) -> SamplingParams:
        """How to sample. Raises InputError for a value out of its range."""
        return SamplingParams(**self.model_dump(exclude={"stop", "adapter"}))


async def generate(
    request: Request, engine: Engine, inputs: dict[str, Array], parameters: dict[str, Any]
) -> dict[str, Array]:
    """The continuation of each prompt, in the prompts' own shape. Raises InputError."""
    if inputs.keys() != {TEXT_INPUT} or not (given := inputs[TEXT_INPUT]).dtype.hasobject or not given.size:
        raise InputError(f"{engine.manifest.tag} generates text; its only input is '{TEXT_INPUT}', BYTES")
    try:
        asked = GenerationParameters.model_validate(parameters)
    except ValidationError as error:
        raise complaint(error, GenerationParameters) from None
    engine.check_count(given.size)
    prompts = await encode(request.app.state.catalog.pool, engine, texts(given))
    pieces = complete(
        engine, requests(prompts, asked.params(), asked.adapter), [asked.stop] if asked.stop else []
    )
    whole = await while_connected(request.receive, answers(pieces, len(prompts)))
    output = np.empty(len(whole), object)
    output[:] = [answer.text.encode() for answer in whole]
    return {TEXT_OUTPUT: output.reshape(given.shape)}
