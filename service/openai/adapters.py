"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, in vLLM's shapes. Both need the scope `admin`.

`model`, the base to load over where several take adapters, is an extension.
"""

from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from service import adapters
from service.body import Body, parse
from service.errors import InvalidRequest

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"


class LoadAdapterBody(Body):
    """`lora_path`: an adapter of the bundle, or a path within the operator's folder of adapters."""

    lora_name: str = Field(pattern=NAME)
    lora_path: str = Field(min_length=1, max_length=1024)
    load_inplace: bool = False
    model: str | None = None


class UnloadAdapterBody(Body):
    """`lora_int_id` is vLLM's own number for the adapter; the name says which one is meant."""

    lora_name: str
    lora_int_id: int | None = Field(default=None, description="Taken, and without effect.")
    model: str | None = None


async def load_lora_adapter(request: Request) -> PlainTextResponse:
    """`POST /v1/load_lora_adapter`."""
    catalog, body = request.app.state.catalog, parse(await request.body(), LoadAdapterBody)
    engine = adapters.base_of(catalog, body.model)
    await request.app.state.journal.load_adapter(
        engine.manifest.tag, body.lora_name, body.lora_path, replace=body.load_inplace
    )
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


async def unload_lora_adapter(request: Request) -> PlainTextResponse:
    """`POST /v1/unload_lora_adapter`."""
    catalog, body = request.app.state.catalog, parse(await request.body(), UnloadAdapterBody)
    bases = [] if body.model else adapters.owners(catalog, body.lora_name)
    if len(bases) > 1:
        raise InvalidRequest(
            f"several models have an adapter '{body.lora_name}'; name one as 'model'", "model"
        )
    engine = bases[0] if bases else adapters.base_of(catalog, body.model)
    await request.app.state.journal.unload_adapter(engine.manifest.tag, body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
