"""What each handler does, takes and gives. Its path and methods are the route's.

Bodies are described by the models that read them. Answers are written out here, as far as clients may rely
on them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from service import admin, app, natural
from service.alias import Alias
from service.jobs import routes as jobs
from service.jobs.job import JobStatus
from service.open_inference import models, repository
from service.open_inference.infer import InferRequest, infer
from service.openai.adapters import (
    LoadAdapterBody,
    UnloadAdapterBody,
    load_lora_adapter,
    unload_lora_adapter,
)
from service.openai.chat import ChatBody, chat_completions
from service.openai.completions import CompletionBody, completions
from service.openai.embeddings import EmbeddingBody, embeddings
from service.openai.models import find_model, list_models

Schema = dict[str, Any]

JSON, BINARY, YAML = "application/json", "application/octet-stream", "application/yaml"
STRING, INTEGER, NUMBER, BOOLEAN = ({"type": name} for name in ("string", "integer", "number", "boolean"))
ANY_OBJECT: Schema = {"type": "object"}
FILE: Schema = {"type": "string", "format": "binary"}


def obj(**properties: Schema) -> Schema:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": [*properties]}


def listed(item: Schema) -> Schema:
    """An array of `item`."""
    return {"type": "array", "items": item}


def maybe(schema: Schema) -> Schema:
    """`schema`, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


@dataclass(frozen=True, slots=True)
class Operation:
    """`body` and `answer` by media type; a pydantic model stands for its schema."""

    summary: str
    answer: Mapping[str, Schema | type[BaseModel]] = field(default_factory=lambda: {JSON: ANY_OBJECT})
    body: Mapping[str, Schema | type[BaseModel]] = field(default_factory=dict)
    body_required: bool = True
    status: int = 200
    more: Mapping[int, str] = field(default_factory=dict)


_USAGE = obj(prompt_tokens=INTEGER, total_tokens=INTEGER)
_MODEL = obj(id=STRING, object={"const": "model"}, created=INTEGER, owned_by=STRING)
_VECTOR = {"anyOf": [STRING, listed(maybe(NUMBER))]}
_TENSOR = obj(name=STRING, datatype=STRING, shape=listed(INTEGER))
_READY = {503: "Not ready."}
_STREAM = {"text/event-stream": STRING}


def _generated(kind: str, **choice: Schema) -> Mapping[str, Schema]:
    choices = listed(obj(index=INTEGER, finish_reason=maybe(STRING), logprobs=maybe(ANY_OBJECT), **choice))
    whole = obj(
        id=STRING, object={"const": kind}, created=INTEGER, model=STRING, choices=choices, usage=_USAGE
    )
    return {JSON: whole, **_STREAM}


_QUESTION: Schema = {"anyOf": [natural.Question.model_json_schema(), STRING, listed({})]}
_FORM: Schema = {"type": "object", "additionalProperties": FILE}
_INFERRED = obj(model_name=STRING, model_version=STRING, outputs=listed(_TENSOR))

OPERATIONS: Mapping[Callable[..., Any], Operation] = {
    app.measurements: Operation("Prometheus metrics", {"text/plain": STRING}),
    natural.predict: Operation(
        "Answer in the task's own words",
        {JSON: obj(model=STRING, version=STRING, predictions=listed(ANY_OBJECT))},
        {JSON: _QUESTION, "image/png": FILE, "image/jpeg": FILE, "multipart/form-data": _FORM},
    ),
    list_models: Operation("List the models", {JSON: obj(object={"const": "list"}, data=listed(_MODEL))}),
    find_model: Operation("Describe a model", {JSON: _MODEL}),
    completions: Operation(
        "Continue a prompt", _generated("text_completion", text=STRING), {JSON: CompletionBody}
    ),
    chat_completions: Operation(
        "Continue a conversation",
        _generated("chat.completion", message=obj(role=STRING, content=STRING)),
        {JSON: ChatBody},
    ),
    embeddings: Operation(
        "Embed texts",
        {
            JSON: obj(
                object={"const": "list"},
                model=STRING,
                data=listed(obj(object={"const": "embedding"}, index=INTEGER, embedding=_VECTOR)),
                usage=_USAGE,
            )
        },
        {JSON: EmbeddingBody},
    ),
    load_lora_adapter: Operation("Load a LoRA adapter", {"text/plain": STRING}, {JSON: LoadAdapterBody}),
    unload_lora_adapter: Operation(
        "Unload a LoRA adapter", {"text/plain": STRING}, {JSON: UnloadAdapterBody}
    ),
    models.server: Operation(
        "Describe the server", {JSON: obj(name=STRING, version=STRING, extensions=listed(STRING))}
    ),
    models.live: Operation("Tell whether the server lives", {JSON: obj(live=BOOLEAN)}),
    models.ready: Operation("Tell whether every model can answer", {JSON: obj(ready=BOOLEAN)}, more=_READY),
    models.model: Operation(
        "Describe a model's tensors",
        {
            JSON: obj(
                name=STRING,
                versions=listed(STRING),
                platform=STRING,
                inputs=listed(_TENSOR),
                outputs=listed(_TENSOR),
            )
        },
    ),
    models.model_ready: Operation(
        "Tell whether a model can answer", {JSON: obj(name=STRING, ready=BOOLEAN)}, more=_READY
    ),
    infer: Operation("Run a model on tensors", {JSON: _INFERRED, BINARY: FILE}, {JSON: InferRequest}),
    repository.index: Operation(
        "List what is served and what could be",
        {JSON: listed(obj(name=STRING, version=STRING, state=STRING, reason=STRING))},
        {JSON: repository.IndexRequest},
        body_required=False,
    ),
    repository.load: Operation(
        "Load a model from the store", body={JSON: repository.ChangeRequest}, body_required=False
    ),
    repository.unload: Operation(
        "Unload a model", body={JSON: repository.ChangeRequest}, body_required=False
    ),
    admin.models: Operation(
        "List every loaded version and alias", {JSON: obj(models=ANY_OBJECT, aliases=ANY_OBJECT)}
    ),
    admin.load: Operation(
        "Load a version",
        {JSON: obj(model=STRING, version=STRING)},
        {JSON: admin.LoadBody},
        body_required=False,
    ),
    admin.unload: Operation("Unload a model or a version", {JSON: obj(model=STRING)}),
    admin.put_alias: Operation("Set what a name stands for", body={JSON: Alias}),
    admin.delete_alias: Operation("Delete an alias", {JSON: obj(alias=STRING)}),
    jobs.submit: Operation(
        "Start a compression job", {JSON: JobStatus}, {JSON: jobs.Submission, YAML: STRING}, status=202
    ),
    jobs.listing: Operation(
        "List the jobs, newest first", {JSON: obj(jobs=listed(JobStatus.model_json_schema()))}
    ),
    jobs.status: Operation("Tell how a job is doing", {JSON: JobStatus}),
    jobs.log: Operation("Read a job's log", {"text/plain": STRING}),
    jobs.bundle: Operation("Fetch the bundles that a job made", {"application/x-tar": FILE}),
    jobs.cancel: Operation("Cancel a job", {JSON: JobStatus}),
    jobs.remove: Operation("Delete an ended job's files", {}, status=204),
}
