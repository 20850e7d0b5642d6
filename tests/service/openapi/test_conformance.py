"""schemathesis against a real server: no 5xx, and no answer that the OpenAPI document does not announce.

What it makes up is bounded: some dozens of requests an operation, few tokens each, nothing that unloads.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from service.openapi.document import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
MODELS = {"enum": ["digits-tiny", "chatter-tiny", "nonsense"]}
BOUNDS: dict[str, Any] = {
    "model": MODELS,
    "max_tokens": {"type": "integer", "minimum": 0, "maximum": 4},
    "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 4},
    "n": {"type": "integer", "minimum": 1, "maximum": 3},
}
LEFT_OUT = ("/v2/repository/models/{name}/unload", "/admin/models/{name}/unload")


def bounded(page: dict[str, Any]) -> dict[str, Any]:
    """The document, its models narrowed to names that mean something, and its answers kept short."""
    for path in LEFT_OUT:
        del page["paths"][path]
    for schema in page["components"]["schemas"].values():
        properties = schema.get("properties", {})
        properties.update({name: BOUNDS[name] for name in BOUNDS.keys() & properties.keys()})
        if "max_tokens" in properties:
            schema["required"] = [*schema["required"], "max_tokens"]
    for operations in page["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in ("model", "name"):
                    parameter["schema"] = MODELS
    return page


@pytest.fixture(scope="module")
def silent(serve_in, environment, bundles) -> Iterator[Any]:
    """A server without an access log: nobody reads what it says, and a full pipe would stop it."""
    variables = environment | {"MODELPRESS_ACCESS_LOG": "false"}
    with serve_in(variables, str(bundles / "digits"), str(bundles / "chatter")) as server:
        yield server


@pytest.fixture(scope="module")
def api(silent) -> Any:
    return schemathesis.openapi.from_dict(bounded(silent.http.get("/openapi.json").json()))


OURS = document(create_app(lambda: None).routes)["paths"]
OPERATIONS = [(path, method) for path in OURS if path not in LEFT_OUT for method in OURS[path]]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_server_keeps_to_its_document(api, silent, path, method) -> None:
    operation = api[path][method.upper()]
    valid, invalid = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(valid, invalid))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=silent.url, checks=CHECKS, timeout=60)

    check()
