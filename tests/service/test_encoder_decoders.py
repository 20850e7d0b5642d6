"""An encoder-decoder behind the server: in both dialects it answers a source as it does alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from compress.export.source import export
from models.sources import load_source
from runtime.bundle import Bundle, write_bundle
from runtime.manifest import Lineage, Manifest
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams

MODEL = "answers-tiny"
CONTEXT = 64
# Random weights say one token for ever; this makes them go through many.
PENALTY = 2.0
SOURCES = ["some text", "a", "another source, and a longer one", "text", "some other text", "one more"]
ASKED = {"model": MODEL, "max_tokens": 12, "temperature": 0, "extra_body": {"repetition_penalty": PENALTY}}


@pytest.fixture(scope="module")
def bundle(bart_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny BART, loaded and exported."""
    source = load_source(f"hf:{bart_folder}")
    artifact, _ = export(source, tmp_path_factory.mktemp("exported"))
    manifest = Manifest(
        name="answers",
        variant="tiny",
        task=source.task,
        signature=artifact.signature,
        processing=source.processing,
        graph=artifact.graph,
        lineage=Lineage(source=source.reference),
    )
    files = {file: artifact.folder / file for file in artifact.graph.shipped} | dict(source.files)
    return write_bundle(tmp_path_factory.mktemp("bundle") / "answers", manifest, files)


@pytest.fixture(scope="module")
def alone(bundle: Bundle) -> dict[str, str]:
    """What the model answers to each source in process, one at a time."""
    model = load_model(bundle)
    assert isinstance(model, TextModel)
    params = SamplingParams(12, temperature=0, repetition_penalty=PENALTY)
    return {source: "".join(model.generate(source, params)) for source in SOURCES}


@pytest.fixture(scope="module")
def server(serve, bundle: Bundle) -> Iterator:
    with serve(str(bundle.path)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_answers_depend_on_their_sources(alone):
    assert len(set(alone.values())) == len(SOURCES)


def test_an_answer_does_not_repeat_its_source(client, alone):
    answer = client.completions.create(prompt=SOURCES[0], **ASKED)
    assert answer.choices[0].text == alone[SOURCES[0]]
    assert answer.usage.completion_tokens <= 12


def test_a_stream_gives_the_same_answer(client, alone):
    stream = client.completions.create(prompt=SOURCES[2], stream=True, **ASKED)
    assert "".join(chunk.choices[0].text for chunk in stream) == alone[SOURCES[2]]


def test_concurrent_answers_are_what_each_is_alone(client, alone):
    def ask(source: str) -> str:
        stream = client.completions.create(prompt=source, stream=True, **ASKED)
        return "".join(chunk.choices[0].text for chunk in stream)

    with ThreadPoolExecutor(len(SOURCES)) as pool:
        assert list(pool.map(ask, SOURCES)) == list(alone.values())
    together = client.completions.create(prompt=SOURCES, **ASKED)
    assert [choice.text for choice in together.choices] == list(alone.values())


def test_a_source_that_is_empty_or_too_long_is_refused(client, alone):
    with pytest.raises(openai.BadRequestError, match="prompt is empty"):
        client.completions.create(prompt="", **ASKED)
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=f"the encoder reads {CONTEXT}") as caught:
            client.completions.create(prompt="some text " * CONTEXT, stream=stream, **ASKED)
        assert caught.value.code == "context_length_exceeded"
    assert client.completions.create(prompt=SOURCES[1], **ASKED).choices[0].text == alone[SOURCES[1]]


def test_a_tensor_of_sources_is_answered_row_by_row(server, alone):
    tensor = {"name": "text_input", "shape": [len(SOURCES)], "datatype": "BYTES", "data": SOURCES}
    parameters = {"max_tokens": 12, "temperature": 0.0, "repetition_penalty": PENALTY}
    answer = server.http.post(
        f"/v2/models/{MODEL}/infer", json={"inputs": [tensor], "parameters": parameters}
    )
    (output,) = answer.json()["outputs"]
    assert output["data"] == list(alone.values())


def test_a_tensor_with_an_empty_source_is_refused(server):
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [""]}
    answer = server.http.post(f"/v2/models/{MODEL}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert "prompt is empty" in answer.json()["error"]


def test_a_source_is_answered_in_plain_words(server, bundle):
    model = load_model(bundle)
    assert isinstance(model, TextModel)
    said = {text: "".join(model.generate(text, SamplingParams(5, temperature=0))) for text in SOURCES}
    answer = server.http.post(f"/predict/{MODEL}", json={"text": SOURCES, "max_tokens": 5})
    assert answer.status_code == 200, answer.text
    assert [each["text"] for each in answer.json()["predictions"]] == list(said.values())
    answer = server.http.post(f"/predict/{MODEL}", json={"text": SOURCES[0], "max_tokens": 5})
    (prediction,) = answer.json()["predictions"]
    assert prediction == {"text": said[SOURCES[0]], "finish_reason": "length"}


def test_a_bad_source_among_good_ones_gets_an_error_of_its_own(server):
    texts = [SOURCES[0], " ", "some text " * CONTEXT, SOURCES[1]]
    answer = server.http.post(f"/predict/{MODEL}", json={"text": texts, "max_tokens": 2})
    first, empty, long, last = answer.json()["predictions"]
    assert first.keys() == last.keys() == {"text", "finish_reason"}
    assert empty == {"error": "the text is empty; send at least one word"}
    assert f"the encoder reads {CONTEXT}" in long["error"]
    alone = server.http.post(f"/predict/{MODEL}", json=texts[2])
    assert alone.status_code == 400
    assert alone.json() == {**long, "code": "context_length_exceeded"}
