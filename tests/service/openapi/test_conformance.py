"""schemathesis against a real server: no 5xx, and no answer that the OpenAPI document does not announce.

What it makes up is bounded: some dozens of requests an operation, few tokens each, names that mean something
half of the time, and recipes that end soon. What is unloaded or deleted is there for that alone.
"""

from collections.abc import Iterator
from pathlib import Path
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

from runtime.bundle import Bundle, write_bundle
from service.app import create_app
from service.openapi.document import document

ROOT = Path(__file__).parents[3]
EXAMPLES = 30
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# It finds out soon that there is no such file, but as any job does: in a process of its own.
RECIPE = {"model": "onnx:absent.onnx", "steps": []}
LIVE = ("queued", "running")
MODELS = {"enum": ["digits-tiny", "chatter-tiny", "nonsense"]}
SPARE = {"enum": ["spare-tiny", "nonsense"]}
BOUNDS: dict[str, Any] = {
    "model": MODELS,
    "adapter": {"enum": ["loud", "nonsense"]},
    "lora_name": {"type": "string", "enum": ["quiet", "chatter-tiny", ""]},
    "lora_path": {"type": "string", "enum": ["loud", "../secret", "/etc/passwd"]},
    "max_tokens": {"type": "integer", "minimum": 0, "maximum": 4},
    "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 4},
    "n": {"type": "integer", "minimum": 1, "maximum": 3},
    "recipe": {"enum": [RECIPE, "model: py:os:getcwd", ""]},
}
# In the order of the routes: what deletes and unloads comes when the others are through.
LAST = ("unload", "delete", "remove")
OURS = document(create_app(lambda: None).routes)["paths"]
OPERATIONS = sorted(
    ((path, method) for path in OURS for method in OURS[path]),
    key=lambda each: any(word in " ".join(each) for word in LAST),
)


def bounded(page: dict[str, Any], job: str) -> dict[str, Any]:
    """The document, narrowed to names that mean something, short answers and quick jobs."""
    for schema in page["components"]["schemas"].values():
        properties = schema.get("properties", {})
        properties.update({name: BOUNDS[name] for name in BOUNDS.keys() & properties.keys()})
        if "max_tokens" in properties:
            schema["required"] = [*schema["required"], "max_tokens"]
    for path, operations in page["paths"].items():
        names = {
            "model": MODELS,
            "name": SPARE if "unload" in path else MODELS,
            "id": {"enum": [job, "nonsense"]},
        }
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = names.get(parameter["name"], parameter["schema"])
    yaml = page["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/yaml"]
    yaml["schema"] = {"type": "string", "enum": ["model: py:os:getcwd", "- a", ""]}
    return page


def jobs(server: Any) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = server.http.get("/jobs").json()["jobs"]
    return listed


@pytest.fixture(scope="module")
def server(
    serve_in: Any,
    environment: dict[str, str],
    bundles: Path,
    adaptable: Bundle,
    eventually: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """A server of one's own that compresses, with a model to unload. Its jobs end with it."""
    home = tmp_path_factory.mktemp("home")
    digits = Bundle.open(bundles / "digits")
    spare = digits.manifest.model_copy(update={"name": "spare", "files": {}})
    write_bundle(home / "spare", spare, {"model.onnx": digits.file("model.onnx")})
    variables = {"PYTHONPATH": str(ROOT), "MODELPRESS_HOME": str(home), "MODELPRESS_JOBS": "1"}
    folders = (digits.path, adaptable.path, home / "spare")
    with serve_in(environment | variables, *map(str, folders)) as server:
        yield server
        for each in jobs(server):
            server.http.post(f"/jobs/{each['id']}/cancel")
        eventually(lambda: not any(each["state"] in LIVE for each in jobs(server)), 60)


@pytest.fixture(scope="module")
def api(server: Any, eventually: Any) -> Any:
    """The document as schemathesis reads it, about a job that has ended."""
    job = server.http.post("/jobs", json={"recipe": RECIPE}).json()["id"]
    eventually(lambda: server.http.get(f"/jobs/{job}").json()["state"] not in LIVE, 120)
    return schemathesis.openapi.from_dict(bounded(server.http.get("/openapi.json").json(), job))


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_server_keeps_to_its_document(api: Any, server: Any, path: str, method: str) -> None:
    operation = api[path][method.upper()]
    valid, invalid = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @settings(max_examples=EXAMPLES, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(valid, invalid))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)

    check()
