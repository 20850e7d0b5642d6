"""A half-precision cache: half the bytes, nearly the same logits, the same greedy tokens."""

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


def test_only_decoders_have_a_cache() -> None:
    check = methods()["kv-cache"].check
    assert check is not None
    with pytest.raises(StepError, match="kv-cache is for decoders"):
        check(validate(CONFIG), "embedding")
