"""The phases step on a real decoder: its graphs are quantized, timed, kept, shipped, judged and run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.phases.step import run
from compress.phases.timing import BATCHES, time_calls
from compress.step import Calibration, methods, validate
from runtime.decoder import Decoder
from runtime.manifest import DecoderGraph, PhaseGraph, Signature
from runtime.phases import open_phases
from runtime.session import open_session

SETTINGS = {"method": "phases", "graphs": [{"scheme": "int4"}, {"scheme": "int8-dynamic"}]}


@pytest.fixture(scope="module")
def source(decoder_graph: Any) -> GraphArtifact:
    path, graph = decoder_graph
    return GraphArtifact(path.parent, graph, Signature(inputs=(), outputs=()))


def phased(source: GraphArtifact, folder: Path) -> GraphArtifact:
    """int4 for one token, int8 for two and more, whatever this machine finds fastest."""
    for scheme, name in (("int4", "decoder.onnx"), ("int8-dynamic", "other.onnx")):
        config = validate({"method": "quantize", "scheme": scheme})
        place = folder / scheme
        place.mkdir()
        made, _ = methods()["quantize"].run(config, source, place, Calibration(lambda samples: iter(())))
        made.path.rename(folder / name)
    assert isinstance(source.graph, DecoderGraph)
    phases = (PhaseGraph(from_tokens=2, file="other.onnx"),)
    return GraphArtifact(folder, source.graph.model_copy(update={"phases": phases}), source.signature)


def test_what_is_kept_fits_the_budget_and_is_described(source: GraphArtifact, tmp_path: Path) -> None:
    target, figures = run(
        validate(SETTINGS | {"max_size": 1.0}), source, tmp_path, Calibration(lambda samples: iter(()))
    )
    assert figures["bytes_after"] == target.size_bytes <= source.size_bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(target.graph.files)
    assert figures["phases"][0]["from_tokens"] == 1
    target.save()
    assert GraphArtifact.load(tmp_path) == target


def test_every_call_runs_on_the_graph_of_its_size_over_one_cache(
    source: GraphArtifact, tmp_path: Path
) -> None:
    made = phased(source, tmp_path)
    graph = made.graph
    assert isinstance(graph, DecoderGraph)
    decoder = Decoder(open_phases(tmp_path.joinpath, graph, threads=1), graph, 2)
    alone = {file: Decoder(open_session(tmp_path / file, threads=1), graph, 2) for file in graph.files}
    prompt = np.arange(9)
    wanted = alone["other.onnx"].prefill(0, prompt)
    np.testing.assert_array_equal(decoder.prefill(0, prompt), wanted)
    assert decoder.graph_calls == {"other.onnx": 1}
    # int4 goes on from the keys and values that int8 left.
    for ours, theirs in zip(
        alone["decoder.onnx"].cache.rows(0, 1), alone["other.onnx"].cache.rows(0, 1), strict=True
    ):
        ours[:] = theirs
    alone["decoder.onnx"].lengths[0] = len(prompt)
    np.testing.assert_array_equal(decoder.decode(np.array([3])), alone["decoder.onnx"].decode(np.array([3])))
    assert decoder.graph_calls == {"other.onnx": 1, "decoder.onnx": 1}
    decoder.verify(0, np.array([3, 4, 5]))
    # A draft is checked by what it stands for.
    assert decoder.graph_calls == {"other.onnx": 1, "decoder.onnx": 2}
    decoder.prefill(1, prompt)
    decoder.decode(np.array([3, 4]))
    assert decoder.graph_calls == {"other.onnx": 3, "decoder.onnx": 2}


def test_every_size_of_a_call_is_timed(source: GraphArtifact) -> None:
    assert isinstance(source.graph, DecoderGraph)
    times = time_calls({"fp32": (source.path, source.graph)})
    assert set(times["fp32"]) >= set(BATCHES)
    assert all(seconds > 0 for seconds in times["fp32"].values())


def test_only_decoders_have_phases() -> None:
    method = methods()["phases"]
    assert method.check is not None
    with pytest.raises(StepError, match="phases is for decoders"):
        method.check(validate(SETTINGS), "embedding")


def test_a_scheme_is_named_once() -> None:
    with pytest.raises(ValueError, match="two of the graphs are of one kind"):
        validate({"method": "phases", "graphs": [{"scheme": "int4"}, {"scheme": "int4"}]})
