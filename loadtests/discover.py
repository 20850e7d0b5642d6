"""Finds out what an address speaks, by asking what each dialect's clients would ask first.

A model list leads to OpenAI's dialects, or by its names to the Open Inference Protocol's metadata; what does
not answer as any of them is measured as plain HTTP. Every guess is tried with one real request, and the first
that is answered well is taken. Nothing is guessed about a server that refuses or cannot be reached.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from loadtests import dialects
from loadtests.address import API_KEY_VARIABLE
from loadtests.client import Client
from loadtests.dialects.exchange import Call, parse_object
from loadtests.dialects.oip_infer import Tensor
from loadtests.errors import BadAnswer, ConnectFailed, ProbeFailed
from loadtests.monitor import Text

TIMEOUT_S = 10.0

# Enough tokens for a time between them, few enough that a slow machine answers several times a second.
PROMPT, MAX_TOKENS = "Once upon a time", 32

# Axes that the metadata leaves open.
OPEN_AXIS = 1


async def discover(client: Client, model: str | None) -> dialects.Request:
    """An entry for a mix that the server answers. Raises ProbeFailed."""
    try:
        await client.pool.resolve()
    except ConnectFailed as error:
        raise ProbeFailed(f"cannot reach {client.address}: {error}") from error
    listed = await _models(client)
    names = [model] if model else listed
    async for keys in _guesses(client, names):
        try:
            request = TypeAdapter[dialects.Request](dialects.Request).validate_python(keys)
        except ValidationError:
            continue
        sample = await client.ask(client.prepare(dialects.calls(request)[0], 0), TIMEOUT_S)
        if sample.error is None:
            return request
        if sample.error in ("http_401", "http_403"):
            raise ProbeFailed(f"{client.address} refused us: put its key into {API_KEY_VARIABLE}")
    known = f"; it has the models {', '.join(listed)}" if listed else ""
    raise ProbeFailed(f"{client.address} answers nothing that we know to ask for{known}")


async def _guesses(client: Client, names: list[str]) -> AsyncIterator[dict[str, Any]]:
    """Entries to try, those that tell most first."""
    for name in names:
        text = {"model": name, "prompts": [PROMPT]}
        if inputs := await _described(client, name):
            yield {"dialect": "oip-infer", "model": name, "inputs": inputs}
        yield {"dialect": "openai-completions", **text, "max_tokens": MAX_TOKENS}
        yield {"dialect": "openai-chat", **text, "max_tokens": MAX_TOKENS}
        yield {"dialect": "openai-embeddings", **text}
    if not names:
        yield {"dialect": "http", "path": "/"}


async def _models(client: Client) -> list[str]:
    """The names that `/v1/models` lists. Raises ProbeFailed where nobody answers at all."""
    document = await _get(client, "/v1/models")
    match document:
        case {"data": [*entries]}:
            return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]
    return []


async def _described(client: Client, name: str) -> list[dict[str, Any]]:
    """Inputs as the model's metadata ask for them; none where it has no metadata."""
    document = await _get(client, f"/v2/models/{quote(name)}")
    match document:
        case {"inputs": [*described]}:
            return list(_inputs(described))
    return []


def _inputs(described: list[Any]) -> Iterator[dict[str, Any]]:
    """Inputs to generate. Text cannot be, and ids beyond 1 might be none of the vocabulary's."""
    for entry in described:
        match entry:
            case {"name": name, "datatype": datatype, "shape": [*axes]} if datatype != "BYTES":
                shape = [axis if isinstance(axis, int) and axis > 0 else OPEN_AXIS for axis in axes]
            case _:
                continue
        keys = {"name": name, "datatype": datatype, "shape": shape}
        try:
            Tensor.model_validate(keys)
        except ValidationError:
            continue
        yield keys


async def _get(client: Client, path: str) -> dict[str, Any]:
    """The JSON there; empty where there is none. Raises ProbeFailed where there is no server, or no entry."""
    sample = await client.ask(client.prepare(Call("GET", path, None, Text), 0), TIMEOUT_S)
    if sample.error == "connect":
        raise ProbeFailed(f"cannot reach {client.address.origin}: {sample.detail}")
    if sample.error in ("http_401", "http_403"):
        raise ProbeFailed(
            f"{client.address} refused us ({sample.status}): put its key into {API_KEY_VARIABLE}"
        )
    if sample.error == "timeout":
        raise ProbeFailed(f"{client.address} did not answer within {TIMEOUT_S:g} s")
    try:
        return parse_object(sample.text.encode()) if sample.error is None else {}
    except BadAnswer:
        return {}
