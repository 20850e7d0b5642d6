"""A bundle whose graphs are given rows instead of tokens is served as any other, where there is no onnx."""

from collections.abc import Callable

import numpy as np
import pytest

from runtime.bundle import Bundle, write_bundle
from runtime.model import TextModel, load_model


@pytest.fixture(scope="module")
def outside(adaptable: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`adaptable`, its embedding outside of both graphs."""
    from compress.artifact import GraphArtifact
    from compress.embedding import take_out

    manifest, folder = adaptable.manifest, tmp_path_factory.mktemp("outside")
    inside = GraphArtifact(adaptable.path, manifest.graph, manifest.signature)
    made = take_out(inside, folder, least=1)
    assert made is not None
    files = {name: folder / name for name in made.graph.shipped}
    files["tokenizer.json"] = adaptable.file("tokenizer.json")
    changed = manifest.model_copy(update={"graph": made.graph, "files": {}})
    return write_bundle(folder / "bundle", changed, files)


def test_it_says_the_same(outside: Bundle, adaptable: Bundle, serve: Callable) -> None:
    asked = {"model": "chatter-tiny", "prompt": "hello", "max_tokens": 12, "temperature": 0}
    with serve(str(outside.path)) as server:
        got = server.http.post("/v1/completions", json=asked).raise_for_status().json()
    model = load_model(adaptable, threads=1)
    assert isinstance(model, TextModel)
    tokens = model.encode("hello")
    for _ in range(12):
        tokens.append(int(model.score(np.array([tokens]))[0, -1].argmax()))
    assert "hello" + got["choices"][0]["text"] == model.decode(tokens)


@pytest.mark.parametrize("adapter", [None, "loud"])
def test_it_scores_the_same_with_an_adapter_and_without(
    outside: Bundle, adaptable: Bundle, adapter: str | None
) -> None:
    tokens = np.arange(36).reshape(2, 18)
    one, other = (load_model(each, threads=1).score(tokens, adapter=adapter) for each in (outside, adaptable))
    np.testing.assert_array_equal(one, other)
