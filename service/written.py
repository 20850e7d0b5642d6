"""Plain texts, answered by a model that writes: what `/predict/{model}` is to encoder-decoders and decoders.

A source is answered, a beginning continued, each by the likeliest tokens and through the same engine as every
other dialect's. It streams nothing and draws nothing: `/v1/completions` does.
"""

from collections.abc import Sequence
from typing import Any

from runtime.errors import InputError
from runtime.model import TextModel
from runtime.sampling import SamplingParams
from service.completion import Answer, answers, complete, requests
from service.engine import Engine
from service.pool import Pool

# As many as an answer may have that is judged.
MAX_TOKENS = 64


async def write(
    pool: Pool, engine: Engine, texts: Sequence[str], max_tokens: int | None = None
) -> list[dict[str, Any] | InputError]:
    """`{text, finish_reason}` to each text, side by side; an error where one cannot be answered.

    `finish_reason` is `stop`, or `length` where `max_tokens` or the model's context cut the answer off.
    Raises InputError for a `max_tokens` below 1 and for more texts than are ever taken, and TooBusy for more
    than may wait now.
    """
    params = SamplingParams(MAX_TOKENS if max_tokens is None else max_tokens, temperature=0)
    engine.check_count(len(texts))
    prompts = await pool.run(_prompts, engine.model, texts)
    good = [prompt for prompt in prompts if not isinstance(prompt, InputError)]
    refused: dict[int, InputError] = {}
    said = await answers(complete(engine, requests(good, params), refused=refused), len(good))
    written = iter(refused.get(index) or _in_words(answer) for index, answer in enumerate(said))
    return [prompt if isinstance(prompt, InputError) else next(written) for prompt in prompts]


def _prompts(model: TextModel, texts: Sequence[str]) -> list[list[int] | InputError]:
    return [_prompt(model, text) for text in texts]


def _prompt(model: TextModel, text: str) -> list[int] | InputError:
    if not text.strip():
        return InputError("the text is empty; send at least one word")
    try:
        return model.encode(text)
    except InputError as error:
        return error


def _in_words(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "finish_reason": answer.finish_reason}
