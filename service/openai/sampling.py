"""The fields that completions and chat have in common: how to draw, when to stop, in which form to answer."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from runtime.constraint import Constraint
from runtime.sampling import MAX_BIAS, SamplingParams
from runtime.scheduler import Request
from service.body import Body
from service.engine import Engine
from service.errors import InvalidRequest
from service.openai.forms import ResponseFormat, StructuredOutputs

MAX_CHOICES = 128
MAX_STOPS = 4
# A character takes so many times as long to tokenize as to be read as JSON, or more.
TOKENIZING = 16
LEAST_NUCLEUS = 1e-9
# JSON's keys are texts.
TokenId = Annotated[str, Field(pattern=r"^\d{1,9}$")]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(Body):
    """`include_usage`: a last chunk without choices says what was used.

    `continuous_usage_stats`, which is vLLM's: every chunk says what has been used so far.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = Field(default=False, description="Taken, and without effect.")


class SamplingBody(Body):
    """A request for generated text, without its prompt."""

    model: str
    adapter: str | None = Field(default=None, description="A LoRA adapter of the model.")
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]] = Field(default={})
    seed: int | None = Field(default=None, ge=-(2**63))
    stop: Annotated[list[str], Field(max_length=MAX_STOPS), BeforeValidator(_listed)] = Field(default=[])
    stop_token_ids: list[int] = Field(default=[])
    ignore_eos: bool = False
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    response_format: ResponseFormat = ResponseFormat(type="text")
    structured_outputs: StructuredOutputs | None = None
    # These do not change the answer of a server that keeps nothing.
    user: str = ""
    metadata: dict[str, str] = Field(default={})
    store: bool = False
    service_tier: str = ""
    safety_identifier: str = ""
    prompt_cache_key: str = ""
    prompt_cache_retention: str = ""
    prompt_cache_options: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _in_one_form(self) -> "SamplingBody":
        if self.structured_outputs and self.response_format.type != "text":
            raise InvalidRequest(
                "structured_outputs: it does not go with 'response_format'; send one of them",
                "structured_outputs",
            )
        return self

    def effort(self, characters: int) -> float:
        """What it takes to prepare prompts of so many characters: as reading so many bytes of JSON does."""
        free = self.structured_outputs is None and self.response_format.type == "text"
        return TOKENIZING * characters if free else math.inf

    def draw(
        self,
        engine: Engine,
        adapter: str | None,
        prompts: Sequence[list[int]],
        max_tokens: int,
        logprobs: int | None,
    ) -> list[Request]:
        """The `n` requests for each prompt: the seed counts up, so that the answers differ.

        Compiles the form to answer in: where there is one, call it in a thread. Raises InputError.
        """
        form = self._form(engine)
        return [
            Request(
                "",
                prompt,
                self._params(max_tokens, logprobs, choice),
                constraint=form and form.copy(),
                adapter=adapter,
            )
            for prompt in prompts
            for choice in range(self.n)
        ]

    def _form(self, engine: Engine) -> Constraint | None:
        asked = self.structured_outputs or self.response_format
        return asked.constraint(engine)

    def _params(self, max_tokens: int, logprobs: int | None, choice: int) -> SamplingParams:
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=self.temperature,
            # vLLM's other word for no limit.
            top_k=0 if self.top_k == -1 else self.top_k,
            # OpenAI's 0 leaves the likeliest token, which a nucleus always holds.
            top_p=self.top_p or LEAST_NUCLEUS,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias={int(token): bias for token, bias in self.logit_bias.items()},
            stop_token_ids=tuple(self.stop_token_ids),
            seed=None if self.seed is None else _drawn_with(self.seed + choice),
            logprobs=logprobs,
            ignore_eos=self.ignore_eos,
        )


def _drawn_with(seed: int) -> int:
    """The same number for the same seed, and none below 0, which a generator does not take."""
    return seed if seed >= 0 else seed + 2**64
