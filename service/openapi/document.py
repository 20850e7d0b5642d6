"""The OpenAPI document: the routes that there are, each with what `operations.py` says of it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from starlette.routing import BaseRoute, Mount, Route

from service.openapi.operations import JSON, OPERATIONS, Operation, Schema, obj

REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)}")
_MESSAGE: Schema = {"type": "string"}
_OPENAI_ERROR = obj(error=obj(message=_MESSAGE, type=_MESSAGE))
_ERROR = obj(error=_MESSAGE, code=_MESSAGE)


def document(routes: Iterable[BaseRoute], native: Schema | None = None) -> Schema:
    """OpenAPI 3.1 for `routes`, and beside them what `native`, another such document, describes."""
    components: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, route in _flat(routes):
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operation = OPERATIONS.get(route.endpoint)
            if operation is not None:
                described = _operation(path, method, operation, components)
                paths.setdefault(path, {})[method.lower()] = described
    native = _whole(native or {})
    return {
        "openapi": "3.1.0",
        # BentoML's own description of itself would have a page load badges from all over the internet.
        "info": {"title": "modelpress", "version": "1", "description": "Compressed models behind REST."},
        "tags": [*native.get("tags", ())],
        "paths": {**native.get("paths", {}), **paths},
        "components": {
            **native.get("components", {}),
            "schemas": {**native.get("components", {}).get("schemas", {}), **components},
        },
    }


def _whole(native: Schema) -> Schema:
    """BentoML's description, with whole bodies: where a field has several types, its paths name the first."""
    known = native.get("components", {}).get("schemas", {})
    paths = {}
    for path, methods in native.get("paths", {}).items():
        name = f"{methods.get('post', {}).get('x-bentoml-name')}__Input"
        if name in known:
            body = {"content": {JSON: {"schema": {"$ref": REF.format(model=name)}}}}
            methods = {**methods, "post": {**methods["post"], "requestBody": body}}
        paths[path] = methods
    return {**native, "paths": paths}


def _flat(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Route]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from _flat(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            yield prefix + route.path_format, route


def _operation(path: str, method: str, operation: Operation, components: dict[str, Any]) -> Schema:
    described: Schema = {
        "operationId": method.lower() + re.sub(r"[^a-z0-9]+", "_", path.lower()),
        "tags": [path.split("/")[1]],
        "summary": operation.summary,
        "parameters": [_parameter(name) for name in _PARAMETER.findall(path)],
        "responses": _responses(path, operation, components),
    }
    if operation.body:
        content = _content(operation.body, components)
        described["requestBody"] = {"content": content, "required": operation.body_required}
    return described


def _parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _responses(path: str, operation: Operation, components: dict[str, Any]) -> Schema:
    error = _OPENAI_ERROR if path.startswith("/v1/") else _ERROR
    statuses = {operation.status: "The answer.", **operation.more}
    return {
        **{str(status): _response(why, operation.answer, components) for status, why in statuses.items()},
        "default": _response("What went wrong.", {JSON: error}, components),
    }


def _response(description: str, content: Any, components: dict[str, Any]) -> Schema:
    return {"description": description, **({"content": _content(content, components)} if content else {})}


def _content(content: Any, components: dict[str, Any]) -> Schema:
    return {media: {"schema": _schema(schema, components)} for media, schema in content.items()}


def _schema(schema: Schema | type[BaseModel], components: dict[str, Any]) -> Schema:
    if isinstance(schema, dict):
        return schema
    described = schema.model_json_schema(ref_template=REF)
    components.update(described.pop("$defs", {}))
    components[schema.__name__] = described
    return {"$ref": REF.format(model=schema.__name__)}
