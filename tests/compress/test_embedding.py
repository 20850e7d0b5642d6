"""Embeddings outside of their graphs: every call says, to the last bit, what it says with them inside."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.artifact import GraphArtifact
from compress.embedding import take_out
from compress.export.decoder import export_decoder
from compress.export.graph import save_model
from compress.pipeline import run
from compress.publish import export_folder
from compress.recipe import parse_recipe
from compress.step import Calibration, methods, validate
from runtime.bundle import Bundle
from runtime.decoder import INPUTS_EMBEDS, Decoder, score
from runtime.manifest import DecoderGraph, PhaseGraph, Signature
from runtime.model import TextModel, load_model
from runtime.phases import open_phases
from runtime.prefix_cache import PrefixCache
from runtime.request import Request
from runtime.sampling import SamplingParams
from runtime.scheduler import Scheduler
from runtime.speculation import DraftModel

INT4 = {"scheme": "int4", "group_size": 16}
SCHEMES: dict[str, dict[str, Any] | None] = {
    "fp32": None,
    "fp16": {"scheme": "fp16"},
    "int8": {"scheme": "int8-dynamic"},
    "int4, its head in 8": INT4,
    "int4, its head in 4": INT4 | {"head_bits": 4},
    # Width 40: the last group is not whole.
    "int4, padded": {"scheme": "int4", "group_size": 32, "head_bits": 4},
    "nf4": {"scheme": "nf4"},
}
PROMPTS = [list(range(20)), [7, 95, 0], [5, 6, 5, 6, 5, 6, 5]]


@pytest.fixture(scope="module")
def exported(
    make_llama: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, GraphArtifact]:
    """Float32 decoders 40 wide, whose head is their embedding, or is not."""
    settings = {"hidden_size": 40, "num_hidden_layers": 1, "head_dim": 16}
    made = {kind: make_llama(tie_word_embeddings=kind == "tied", **settings) for kind in ("tied", "untied")}
    return {kind: export(module, tmp_path_factory.mktemp(kind)) for kind, module in made.items()}


@pytest.fixture
def tied(exported: dict[str, GraphArtifact], tmp_path: Path) -> GraphArtifact:
    """The one with one table, in a folder of the test's own."""
    shutil.copy(exported["tied"].path, tmp_path)
    return exported["tied"].at(tmp_path)


def export(module: Any, folder: Path) -> GraphArtifact:
    graph = export_decoder(module, folder / "decoder.onnx")
    return GraphArtifact(folder, graph, Signature(inputs=(), outputs=()))


def quantized(plain: GraphArtifact, scheme: dict[str, Any] | None, folder: Path) -> GraphArtifact:
    if scheme is None:
        return plain
    folder.mkdir()
    config = validate({"method": "quantize", **scheme})
    return methods()["quantize"].run(config, plain, folder, Calibration(lambda count: iter(())))[0]


def outside(graph: GraphArtifact, folder: Path) -> GraphArtifact:
    folder.mkdir()
    made = take_out(graph, folder, least=1)
    assert made is not None
    return made


def decoder(artifact: GraphArtifact, slots: int) -> Decoder:
    graph = artifact.graph
    assert isinstance(graph, DecoderGraph)
    return Decoder(open_phases(artifact.folder.joinpath, graph, threads=1), graph, slots)


def calls(artifact: GraphArtifact) -> list[np.ndarray]:
    """Logits of prompts, of steps of one row and of several, of drafts, and of all tokens at once."""
    made = decoder(artifact, len(PROMPTS))
    found = [made.prefill(slot, np.array(prompt)) for slot, prompt in enumerate(PROMPTS)]
    found += [made.decode(np.array(tokens)).copy() for tokens in ([1, 2, 95], [95, 0, 3], [4], [5])]
    found.append(made.verify(0, np.array([8, 9, 10])).copy())
    assert isinstance(artifact.graph, DecoderGraph)
    tokens = np.arange(96).reshape(2, 48)
    for phase in open_phases(artifact.folder.joinpath, artifact.graph, threads=1):
        found.append(score(phase.session, artifact.graph, tokens, embedding=phase.embedding))
    return found


def assert_same(one: GraphArtifact, other: GraphArtifact) -> None:
    for got, wanted in zip(calls(one), calls(other), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_call_gives_the_same_bits(
    exported: dict[str, GraphArtifact], kind: str, scheme: dict[str, Any] | None, tmp_path: Path
) -> None:
    inside = quantized(exported[kind], scheme, tmp_path / "inside")
    made = outside(inside, tmp_path / "outside")
    assert_same(made, inside)
    model = onnx.load(made.path)
    names = {value.name for value in model.graph.input}
    assert INPUTS_EMBEDS in names
    assert "input_ids" not in names
    assert [path.name for path in made.folder.iterdir()] == ["decoder.onnx"]
    assert made.size_bytes <= inside.size_bytes


def test_graphs_of_several_kinds_have_their_own_tables(tied: GraphArtifact, tmp_path: Path) -> None:
    for name in ("int8", "int4, its head in 4"):
        quantized(tied, SCHEMES[name], tmp_path / name).path.rename(tmp_path / f"{name[:4]}.onnx")
    assert isinstance(tied.graph, DecoderGraph)
    # The first one again for the largest calls, as a schedule may have it.
    phases = (PhaseGraph(from_tokens=3, file="int8.onnx"), PhaseGraph(from_tokens=50, file="int4.onnx"))
    described = tied.graph.model_copy(update={"file": "int4.onnx", "phases": phases})
    inside = GraphArtifact(tmp_path, described, tied.signature)
    made = outside(inside, tmp_path / "outside")
    assert isinstance(made.graph, DecoderGraph)
    assert made.graph.embedding is not None
    assert [phase.embedding and phase.embedding.bits for phase in made.graph.phases] == [8, 4]
    made.save()
    assert_same(GraphArtifact.load(made.folder), inside)


def test_one_graph_of_two_may_keep_its_table(tied: GraphArtifact, tmp_path: Path) -> None:
    small = quantized(tied, SCHEMES["int8"], tmp_path / "int8").path.rename(tmp_path / "int8.onnx")
    assert isinstance(tied.graph, DecoderGraph)
    described = tied.graph.model_copy(update={"phases": (PhaseGraph(from_tokens=2, file=small.name),)})
    inside = GraphArtifact(tmp_path, described, tied.signature)
    (tmp_path / "outside").mkdir()
    made = take_out(inside, tmp_path / "outside", least=4 * 96 * 40)
    assert made is not None
    assert isinstance(made.graph, DecoderGraph)
    assert made.graph.embedding is not None
    assert made.graph.phases[0].embedding is None
    assert_same(made, inside)


def answers(artifact: GraphArtifact) -> list[list[int | None]]:
    """Greedy ones, through a scheduler that shares prefixes and speculates where one sequence is left."""
    scheduler = Scheduler(
        decoder(artifact, 2),
        prefix_cache=PrefixCache(1 << 20),
        proposer=DraftModel(decoder(artifact, 1)),
        prefill_chunk=8,
    )
    params = SamplingParams(max_tokens=12, temperature=0)
    found: dict[str, list[int | None]] = {}
    for turn, prompt in enumerate([*PROMPTS, *PROMPTS]):
        scheduler.add(Request(str(turn), prompt, params))
    while scheduler.has_work:
        for event in scheduler.step():
            found.setdefault(event.request_id, []).append(event.token_id)
    assert scheduler.statistics.prefix_hit_tokens > 0
    assert scheduler.statistics.draft_tokens > 0
    return [found[str(turn)] for turn in range(2 * len(PROMPTS))]


def test_what_is_generated_is_the_same(tied: GraphArtifact, tmp_path: Path) -> None:
    inside = quantized(tied, INT4, tmp_path / "inside")
    assert answers(outside(inside, tmp_path / "outside")) == answers(inside)


def test_a_small_table_stays_where_it_is(tied: GraphArtifact, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    assert not tied.may_look_up_much
    assert take_out(tied, tmp_path / "outside") is None
    assert not list((tmp_path / "outside").iterdir())


def test_tokens_that_something_else_reads_are_left_to_the_graph(tied: GraphArtifact, tmp_path: Path) -> None:
    model = onnx.load(tied.path)
    model.graph.node.insert(0, helper.make_node("Identity", ["input_ids"], ["asked"]))
    model.graph.output.append(helper.make_tensor_value_info("asked", TensorProto.INT64, None))
    save_model(model, tied.path)
    (tmp_path / "outside").mkdir()
    assert take_out(tied, tmp_path / "outside", least=1) is None


def test_a_recipe_ends_in_a_bundle_that_reads_its_rows(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    small = LlamaForCausalLM.from_pretrained(llama_folder)
    # 8 MiB of float32, and no more of it in 8 bits: only the baseline's is large.
    small.resize_token_embeddings(1 << 16)
    folder = tmp_path / "wide"
    small.save_pretrained(folder)
    shutil.copy(llama_folder / "tokenizer.json", folder)
    texts = str(llama_folder.parent / "texts.jsonl")
    recipe = {"model": f"hf:{folder}", "data": texts, "gate": {"max_drop": None, "examples": 2}}
    result = run(parse_recipe(json.dumps(recipe)))
    again = run(parse_recipe(json.dumps(recipe)))
    assert [stage.cached for stage in again.stages] == [True] * len(result.stages)
    bundle = Bundle.open(export_folder(result.bundle, tmp_path / "bundle").path)
    assert isinstance(bundle.manifest.graph, DecoderGraph)
    assert bundle.manifest.graph.embedding is not None
    model = load_model(bundle, threads=1)
    assert isinstance(model, TextModel)
    with torch.inference_mode():
        wanted = small.eval().generate(torch.tensor([[1, 2, 3]]), max_new_tokens=8, do_sample=False)
    got = model.generate([1, 2, 3], SamplingParams(max_tokens=8, temperature=0))
    assert "".join(got) == model.tokenizer.decode(wanted[0, 3:].tolist())
