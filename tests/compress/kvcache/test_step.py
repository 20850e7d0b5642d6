"""A smaller cache: half or a quarter of the bytes, nearly the same logits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.step import Calibration, methods, validate
from runtime.decoder import Decoder
from runtime.kv_cache import bytes_per_token
from runtime.manifest import DecoderGraph, Signature
from runtime.session import open_session

CONFIG = {"method": "kv-cache"}


@pytest.fixture(scope="module")
def halves(
    decoder_graph: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GraphArtifact, GraphArtifact]:
    """The decoder, and the decoder over a half-precision cache."""
    path, graph = decoder_graph
    source = GraphArtifact(path.parent, graph, Signature(inputs=(), outputs=()))
    folder: Path = tmp_path_factory.mktemp("half")
    made, _ = methods()["kv-cache"].run(
        validate(CONFIG), source, folder, Calibration(lambda samples: iter(()))
    )
    return source, made


def decoded(artifact: GraphArtifact) -> np.ndarray:
    """Logits [steps, 2, vocabulary] of two sequences that decode together, tokens forced."""
    assert isinstance(artifact.graph, DecoderGraph)
    decoder = Decoder(open_session(artifact.path, threads=1), artifact.graph, 2)
    decoder.prefill(0, np.arange(20))
    decoder.prefill(1, np.arange(30, 37))
    return np.stack([decoder.decode(np.array([step, 90 - step])).copy() for step in range(16)])


def test_half_the_bytes_and_nearly_the_same_logits(halves: tuple[GraphArtifact, GraphArtifact]) -> None:
    source, made = halves
    assert isinstance(source.graph, DecoderGraph)
    assert isinstance(made.graph, DecoderGraph)
    assert bytes_per_token(made.graph) * 2 == bytes_per_token(source.graph)
    wanted, got = decoded(source), decoded(made)
    assert 0 < np.abs(got - wanted).max() < 2e-3 * np.abs(wanted).max()
    np.testing.assert_array_equal(got.argmax(-1), wanted.argmax(-1))


def test_a_quarter_of_the_bytes_in_int8(decoder_graph: Any, int8_cache_graph: Any) -> None:
    (path, graph), (int8_path, int8_graph) = decoder_graph, int8_cache_graph
    nothing = Signature(inputs=(), outputs=())
    assert bytes_per_token(int8_graph) * 4 == bytes_per_token(graph)
    wanted = decoded(GraphArtifact(path.parent, graph, nothing))
    got = decoded(GraphArtifact(int8_path.parent, int8_graph, nothing))
    assert 0 < np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()


def test_int8_scales_come_from_some_windows_and_are_judged_on_others(
    decoder_graph: Any, tmp_path: Path
) -> None:
    path, graph = decoder_graph
    source = GraphArtifact(path.parent, graph, Signature(inputs=(), outputs=()))
    # Of two tokens the one is all that calibration sees, and the other all that it is checked on.
    windows = np.array([[1] * 24] * 8 + [[2] * 24] * 4)
    figures = {}
    for margin in (1.0, 3.0):
        (folder := tmp_path / str(margin)).mkdir()
        calibration = Calibration(lambda samples: iter([{"input_ids": windows[:samples]}]))
        config = validate({**CONFIG, "dtype": "int8", "samples": 8, "margin": margin})
        _, figures[margin] = methods()["kv-cache"].run(config, source, folder, calibration)
        assert [file.name for file in folder.iterdir()] == [path.name]
    assert figures[1.0]["clipped"] > 4 * figures[3.0]["clipped"]
    assert figures[1.0]["logit_deviation"] > figures[3.0]["logit_deviation"] > 0


def test_tokens_read_at_once_in_chunks_or_one_by_one_are_one_over_int8(int8_cache_graph: Any) -> None:
    """The kernel attends to what it stored, so no answer depends on how its prompt was cut."""
    path, graph = int8_cache_graph
    tokens = np.random.default_rng(5).integers(0, 96, 30)
    decoder = Decoder(open_session(path, threads=1), graph, 2)
    whole = decoder.prefill(1, tokens)
    decoder.prefill(0, tokens[:13])
    cut = decoder.prefill(0, tokens[13:])
    decoder.release(0)
    decoder.prefill(0, tokens[:1])
    for token in tokens[1:]:
        last = decoder.decode(np.array([token]))[0].copy()
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    np.testing.assert_allclose(last, whole, atol=1e-5)


@pytest.mark.parametrize("setting", [{"samples": 8}, {"margin": 2.0}, {"dtype": "int8", "margin": 0.5}])
def test_settings_that_nothing_reads_or_that_would_clip_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"dtype: int8|greater than or equal to 1"):
        validate({**CONFIG, **setting})


def test_a_cache_has_one_type() -> None:
    conflict = methods()["kv-cache"].conflict
    assert conflict is not None
    assert "already" in (conflict(validate(CONFIG), validate({**CONFIG, "dtype": "int8"})) or "")
    assert conflict(validate(CONFIG), validate({"method": "quantize", "scheme": "int4"})) is None


def test_only_decoders_have_a_cache() -> None:
    check = methods()["kv-cache"].check
    assert check is not None
    with pytest.raises(StepError, match="kv-cache is for decoders"):
        check(validate(CONFIG), "embedding")
