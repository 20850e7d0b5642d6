"""`/v1/embeddings`: one vector for each text, pooled and normalised as the bundle says.

A vector of a text's beginning is not the text's: what is longer than the model reads is refused, as OpenAI
does it, unless the request says by vLLM's `truncate_prompt_tokens` that it may be cut.
"""

import base64
from typing import Any, Literal

import numpy as np
from pydantic import Field
from starlette.requests import Request

from runtime.errors import InputError, PromptTooLong
from runtime.manifest import TextProcessing
from runtime.processing import Array, pool
from service.batcher import Batcher
from service.body import Body, content, parse
from service.errors import InvalidRequest
from service.hang_up import unless_left
from service.json_response import JsonResponse
from service.openai.prompts import Prompts


class EmbeddingBody(Body):
    """The body of `/v1/embeddings`. `dimensions` keeps the first ones of each vector.

    `truncate_prompt_tokens` -1: texts are cut to what the model reads. No other length can be asked for.
    """

    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    truncate_prompt_tokens: Literal[-1] | None = None
    user: str = ""


async def embeddings(request: Request) -> JsonResponse:
    """`POST /v1/embeddings`. float32 in base64 is exact, NaN included; as numbers NaN is null."""
    catalog, raw = request.app.state.catalog, await content(request)
    body = await catalog.pool.parse(parse, len(raw), raw, EmbeddingBody)
    model: Batcher = catalog.tensor(body.model)
    processing = _processing(model)
    model.expect()
    inputs = await catalog.pool.parse(_encode, len(raw), model, body)
    (hidden, *_) = (await unless_left(request.receive, model, model.run(inputs))).values()
    vectors = _shortened(pool(hidden, inputs["attention_mask"], processing), body, processing)
    tokens = int(inputs["attention_mask"].sum())
    return JsonResponse(
        {
            "object": "list",
            "model": model.manifest.tag,
            "data": [_embedding(index, row, body.encoding_format) for index, row in enumerate(vectors)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _encode(model: Batcher, body: EmbeddingBody) -> dict[str, Array]:
    """The texts as the graph's inputs. Raises InputError."""
    try:
        return model.model.encode(body.input, truncate=body.truncate_prompt_tokens is not None)
    except PromptTooLong as error:
        raise PromptTooLong(f"{error}, or send 'truncate_prompt_tokens': -1 to have it cut") from None


def _processing(model: Batcher) -> TextProcessing:
    manifest = model.manifest
    processing = manifest.processing
    if manifest.task != "embedding" or not isinstance(processing, TextProcessing):
        raise InputError(f"'{manifest.tag}' does not embed texts; ask it by POST /predict/{manifest.tag}")
    if processing.pooling == "none":
        raise InputError(f"'{manifest.tag}' gives a vector for each token; ask it by POST /v2/models/…/infer")
    return processing


def _shortened(vectors: Array, body: EmbeddingBody, processing: TextProcessing) -> Array:
    """float32; the first `dimensions` of each row, of length one again where the whole rows were.

    It is for models trained so that a vector's beginning says most (Kusupati et al., 2022, arXiv:2205.13147).
    """
    wanted, width = body.dimensions or vectors.shape[1], vectors.shape[1]
    if wanted > width:
        raise InvalidRequest(f"dimensions: the vectors have {width}; ask for no more", "dimensions")
    kept = vectors[:, :wanted]
    if processing.normalize and wanted < width:
        kept = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(kept, np.float32)


def _embedding(index: int, vector: Array, encoding: str) -> dict[str, Any]:
    value = base64.b64encode(vector.tobytes()).decode() if encoding == "base64" else vector
    return {"object": "embedding", "index": index, "embedding": value}
