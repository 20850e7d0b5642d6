"""LoRA adapters: loaded and unloaded in vLLM's shapes, and asked for by the unmodified `openai` client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from runtime.bundle import Bundle
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams
from service.keys import new_key

MODEL = "chatter-tiny"
PROMPT = "hello"


@pytest.fixture(scope="module")
def folder(write_adapter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's folder of adapters, and beside it a file that nobody may ask for."""
    folder = tmp_path_factory.mktemp("operator") / "adapters"
    (folder / "team").mkdir(parents=True)
    write_adapter(folder / "team" / "quiet.onnx_adapter", 2)
    write_adapter(folder / "wide.onnx_adapter", 3, width=33)
    (folder / "broken.onnx_adapter").write_bytes(b"not an adapter")
    secret = write_adapter(folder.parent / "secret.onnx_adapter", 4)
    (folder / "link.onnx_adapter").symlink_to(secret)
    return folder


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of keys, and the key of each scope."""
    made = {scope: new_key(scope, [scope]) for scope in ("infer", "admin")}
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text("".join(f"{line}\n" for _, line in made.values()))
    return path, {scope: secret for scope, (secret, _) in made.items()}


@pytest.fixture(scope="module")
def url(
    serve_in: Any, environment: dict[str, str], adaptable: Bundle, folder: Path, keys: Any
) -> Iterator[str]:
    variables = environment | {"MODELPRESS_ADAPTERS": str(folder), "MODELPRESS_KEYS_FILE": str(keys[0])}
    with serve_in(variables, str(adaptable.path)) as server:
        yield f"{server.url}/v1"


@pytest.fixture(scope="module")
def client(url: str, keys: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=keys[1]["infer"], max_retries=0) as client:
        yield client


@pytest.fixture
def admin(url: str, keys: Any) -> Iterator[httpx.Client]:
    """The operator's client; whatever it loaded is unloaded afterwards."""
    headers = {"Authorization": f"Bearer {keys[1]['admin']}"}
    with httpx.Client(base_url=url, headers=headers) as client:
        yield client
        for model in client.get("/models").json()["data"]:
            if model["id"] not in (MODEL, "loud"):
                client.post("/unload_lora_adapter", json={"lora_name": model["id"]}).raise_for_status()


@pytest.fixture(scope="module")
def model(adaptable: Bundle, folder: Path) -> TextModel:
    model = load_model(adaptable)
    assert isinstance(model, TextModel)
    model.adapters.load("quiet", folder / "team" / "quiet.onnx_adapter")
    return model


def wanted(model: TextModel, adapter: str | None) -> str:
    return "".join(model.generate(PROMPT, SamplingParams(12, temperature=0), adapter=adapter))


def said(client: openai.OpenAI, model: str, **more: Any) -> str:
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0, **more)
    return answer.choices[0].text


def load(admin: httpx.Client, path: str, name: str = "quiet", **more: Any) -> httpx.Response:
    return admin.post("/load_lora_adapter", json={"lora_name": name, "lora_path": path, **more})


def test_an_adapter_is_asked_for_by_its_name_or_beside_its_model(client, model):
    plain, loud = wanted(model, None), wanted(model, "loud")
    assert plain != loud
    assert said(client, MODEL) == plain
    assert said(client, "loud") == loud
    assert said(client, MODEL, extra_body={"adapter": "loud"}) == loud
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
    answer, base = (client.chat.completions.create(model=name, **chat) for name in ("loud", MODEL))
    assert (answer.model, base.model) == ("loud", MODEL)
    assert answer.choices[0].message.content != base.choices[0].message.content
    chunks = client.chat.completions.create(model="loud", stream=True, **chat)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == answer.choices[0].message.content


def test_what_is_echoed_is_scored_with_the_adapter(client):
    scores = [
        client.completions.create(model=name, prompt=PROMPT, max_tokens=0, echo=True, logprobs=0)
        for name in (MODEL, "loud")
    ]
    plain, loud = (answer.choices[0].logprobs.token_logprobs[1:] for answer in scores)
    assert not np.allclose(plain, loud)


def test_an_adapter_is_loaded_listed_and_unloaded(client, admin, model):
    answer = load(admin, "team/quiet.onnx_adapter")
    assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'quiet' added successfully.")
    listed = {each.id: each.parent for each in client.models.list()}
    assert listed == {MODEL: None, "loud": MODEL, "quiet": MODEL}
    assert client.models.retrieve("quiet").parent == MODEL
    assert said(client, "quiet") == wanted(model, "quiet")
    answer = admin.post("/unload_lora_adapter", json={"lora_name": "quiet", "lora_int_id": 1})
    assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'quiet' removed successfully.")
    with pytest.raises(openai.NotFoundError, match="no model 'quiet'"):
        said(client, "quiet")


def test_the_bundles_own_come_back_by_name(client, admin, model):
    assert admin.post("/unload_lora_adapter", json={"lora_name": "loud"}).status_code == 200
    with pytest.raises(openai.NotFoundError, match="no adapter 'loud'"):
        said(client, MODEL, extra_body={"adapter": "loud"})
    assert load(admin, "loud", name="loud").status_code == 200
    assert said(client, "loud") == wanted(model, "loud")


def test_one_adapter_takes_anothers_place_only_when_that_is_meant(client, admin, model):
    path = "team/quiet.onnx_adapter"
    assert load(admin, "loud").status_code == 200
    assert load(admin, path).status_code == 409
    assert said(client, "quiet") == wanted(model, "loud")
    assert load(admin, path, load_inplace=True).status_code == 200
    assert said(client, "quiet") == wanted(model, "quiet")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../secret.onnx_adapter", "leaves the folder"),
        ("team/../../secret.onnx_adapter", "leaves the folder"),
        ("/etc/passwd", "leaves the folder"),
        ("link.onnx_adapter", "leaves the folder"),
        ("\0", "leaves the folder"),
        ("absent", "no file 'absent'"),
        ("x" * 1000, "no file"),
        ("team", "no such file"),
        ("broken.onnx_adapter", "not an onnxruntime adapter"),
        ("wide.onnx_adapter", "is [33, 2] where this model takes [32, 2]"),
        ("", "at least 1 character"),
    ],
)
def test_no_path_leads_out_of_the_operators_folder(admin, folder, path, message):
    answer = load(admin, path)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert str(folder) not in answer.text
    assert "quiet" not in admin.get("/models").text


def test_a_path_within_the_folder_may_be_absolute(admin, folder):
    assert load(admin, str(folder / "team" / "quiet.onnx_adapter")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"lora_name": MODEL, "lora_path": "loud"}, 409),
        ({"lora_name": "a/b", "lora_path": "loud"}, 400),
        ({"lora_name": "a", "lora_path": "loud", "model": "nothing"}, 404),
        ({"lora_name": "a"}, 400),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(admin, body, status):
    assert admin.post("/load_lora_adapter", json=body).status_code == status


def test_only_an_admin_loads(admin, client):
    headers = {"Authorization": f"Bearer {client.api_key}"}
    for verb in ("load", "unload"):
        answer = admin.post(f"/{verb}_lora_adapter", json={}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")


def test_an_adapter_that_is_not_there_is_not_unloaded(admin):
    answer = admin.post("/unload_lora_adapter", json={"lora_name": "nobody"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "adapter_not_found")


def test_without_a_folder_and_a_model_that_takes_them_none_is_loaded(server):
    body = {"lora_name": "a", "lora_path": "/etc/passwd"}
    for more, message in (({}, "take adapters: none"), ({"model": MODEL}, "MODELPRESS_ADAPTERS")):
        answer = server.http.post("/v1/load_lora_adapter", json=body | more)
        assert answer.status_code == 400
        assert message in answer.json()["error"]["message"]
