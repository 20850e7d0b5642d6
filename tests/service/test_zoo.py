"""Every member of the zoo behind one server: it answers over HTTP what it answers in process.

The networks are `tiny` and untrained. What the answers of each task look like is `test_tasks`' business.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress.export.source import export
from models import registry
from models.errors import DataError
from models.sources.source import SourceModel
from runtime.bundle import Bundle
from runtime.captions import Captioned
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams
from tests.zoo_members import bundled, tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TOKENS = 6


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SourceModel, Bundle]]:
    """Every member whose data is here, exported in float32."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELPRESS_HOME", str(tmp_path_factory.mktemp("home")))
        for name in registry.names():
            with suppress(DataError):
                _, source = tiny(name)
                folder = tmp_path_factory.mktemp(name)
                (folder / "float32").mkdir()
                artifact, _ = export(source, folder / "float32")
                found[name] = (source, bundled(source, artifact, folder / "bundle"))
    return found


@pytest.fixture(scope="module")
def server(serve, members) -> Iterator[Any]:
    with serve(*[str(bundle.path) for _, bundle in members.values()]) as running:
        yield running


@pytest.mark.parametrize("name", registry.names())
def test_a_member_answers_over_http_as_in_process(name, members, server):
    if name not in members:
        pytest.skip("its data is not here")
    source, bundle = members[name]
    model = load_model(bundle)
    if isinstance(model, TextModel):
        assert_continues(server, model, source)
        return
    item = source.dataset.validation.raw[0]
    answer = server.http.post(f"/predict/{model.manifest.tag}", json=as_json(item))
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    assert prediction.keys() == model.predict([item])[0].keys()
    inputs = model.encode([item])
    answer = server.http.post(f"/v2/models/{model.manifest.tag}/infer", json={"inputs": tensors(inputs)})
    assert answer.status_code == 200, answer.text
    for output in answer.json()["outputs"]:
        wanted = model.run(inputs)[output["name"]]
        got = np.array(output["data"]).reshape(output["shape"])
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3 * float(np.abs(wanted).max()))


def assert_continues(server, model: TextModel, source: SourceModel) -> None:
    prompt = source.dataset.validation.inputs["input_ids"][0, :12].tolist()
    body = {"model": model.manifest.tag, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    said = "".join(model.generate(prompt, SamplingParams(max_tokens=TOKENS, temperature=0)))
    assert answer.json()["choices"][0]["text"] == said
    text = model.tokenizer.decode(prompt)
    said = "".join(model.generate(text, SamplingParams(max_tokens=TOKENS, temperature=0)))
    body = {"text": text, "max_tokens": TOKENS}
    answer = server.http.post(f"/predict/{model.manifest.tag}", json=body)
    assert answer.json()["predictions"][0]["text"] == said


def as_json(item: Any) -> Any:
    """A held-out example as a client sends it."""
    if isinstance(item, Captioned):
        return (
            {"image": png(item.image), "text": list(item.captions)} if item.captions else as_json(item.image)
        )
    if isinstance(item, Image.Image):
        return {"image": png(item)}
    if isinstance(item, Mapping) and "features" in item:
        return {"graph": {key: np.asarray(value).tolist() for key, value in item.items()}}
    return item if isinstance(item, str | Mapping) else {"tensor": np.asarray(item).tolist()}


def png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def tensors(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Arrays as the Open Inference Protocol's JSON."""
    datatypes = {"float32": "FP32", "int64": "INT64"}
    return [
        {
            "name": name,
            "shape": list(value.shape),
            "datatype": datatypes[str(value.dtype)],
            "data": value.ravel().tolist(),
        }
        for name, value in inputs.items()
    ]
