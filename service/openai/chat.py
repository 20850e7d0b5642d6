"""`/v1/chat/completions`: a conversation, continued by the assistant."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from starlette.requests import Request
from starlette.types import ASGIApp
from tokenizers import Tokenizer

from runtime.sampling import MAX_LOGPROBS
from runtime.scheduler import Request as Asked
from runtime.scheduler import TokenLogprob
from service.adapters import choose
from service.body import Body, read
from service.completion import Answer, Piece, complete
from service.engine import Engine
from service.errors import InvalidRequest
from service.openai.logprobs import chat_logprobs
from service.openai.neutral import EitherWay, NoChoice, Nothing, NoThinking, OnlyText
from service.openai.reply import Reply, respond
from service.openai.sampling import SamplingBody


class TextPart(Body):
    """A part of a message. Images and sounds are not understood."""

    type: Literal["text"]
    text: str


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(Body):
    """One turn. `developer` is what OpenAI now calls `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    # Conversations are sent back as they came, from other servers too. Calls come without content.
    tool_calls: Nothing = None
    annotations: Nothing = None
    content: Annotated[list[TextPart], BeforeValidator(_parts, json_schema_input_type=str | list[TextPart])]
    name: str = ""

    def plain(self) -> dict[str, str]:
        """The turn as templates expect it."""
        content = "".join(part.text for part in self.content)
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": content} | ({"name": self.name} if self.name else {})


class ChatBody(SamplingBody):
    """The body of `/v1/chat/completions`. Without `max_tokens` an answer may fill the context."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=MAX_LOGPROBS)
    prediction: dict[str, Any] | None = Field(default=None, description="Taken, and without effect.")
    tools: Nothing = None
    functions: Nothing = None
    tool_choice: NoChoice = None
    function_call: NoChoice = None
    parallel_tool_calls: EitherWay = None
    modalities: OnlyText = None
    reasoning_effort: NoThinking = None

    @model_validator(mode="after")
    def _possible(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs: it goes with 'logprobs': true", "top_logprobs")
        return self

    @property
    def characters(self) -> int:
        """Of all messages."""
        return sum(len(part.text) for message in self.messages for part in message.content)

    def room(self, engine: Engine, prompt: list[int]) -> int:
        """How many tokens the answer may have."""
        asked = self.max_completion_tokens or self.max_tokens
        return asked or max(1, engine.model.graph.context_length - len(prompt))


@dataclass(slots=True)
class ChatChoices:
    """`choices` of `/v1/chat/completions`."""

    tokenizer: Tokenizer
    logprobs: bool
    prefix = "chatcmpl"
    whole_object, chunk_object = "chat.completion", "chat.completion.chunk"
    _begun: set[int] = field(default_factory=set)

    def whole(self, index: int, answer: Answer) -> dict[str, Any]:
        """One choice, whole."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return self._choice(index, "message", message, answer.logprobs, answer.finish_reason)

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One choice of one event; the first of each says the role."""
        delta = {"content": piece.text}
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            delta = {"role": "assistant", **delta}
        return self._choice(piece.index, "delta", delta, piece.logprobs, piece.finish_reason)

    def _choice(
        self, index: int, key: str, said: Any, scored: Sequence[TokenLogprob], finish_reason: str | None
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(self.tokenizer, scored) if self.logprobs else None
        return {"index": index, key: said, "logprobs": logprobs, "finish_reason": finish_reason}


async def chat_completions(request: Request) -> ASGIApp:
    """`POST /v1/chat/completions`."""
    catalog, body = request.app.state.catalog, await read(request, ChatBody)
    engine, adapter = choose(catalog, body.model, body.adapter)
    engine.expect()
    asked = await catalog.pool.parse(_prepare, body.effort(body.characters), engine, adapter, body)
    choices = ChatChoices(engine.model.tokenizer, body.logprobs)
    reply = Reply(request.state.request_id, engine.manifest, adapter, choices, len(asked[0].prompt), body.n)
    pieces = complete(engine, asked, [*body.stop, *engine.model.chat_template.stop])
    return await respond(request, body, reply, pieces, body.n)


def _prepare(engine: Engine, adapter: str | None, body: ChatBody) -> list[Asked]:
    """Render, tokenize and compile grammars: in a thread, unless that is little."""
    prompt = engine.model.encode_chat([message.plain() for message in body.messages])
    top = body.top_logprobs if body.logprobs else None
    return body.draw(engine, adapter, [prompt], body.room(engine, prompt), top)
