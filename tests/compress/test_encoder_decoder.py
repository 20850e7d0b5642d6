"""An encoder-decoder from a saved folder to a bundle that answers, as it was and quantized."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.export.source import export
from compress.measure import qualities_of, score
from compress.quality import module_metric
from compress.quantize import step as quantize
from compress.quantize.config import Int4, Int8Dynamic
from compress.step import Calibration
from models.datasets import Dataset
from models.datasets.encoding import answer_split
from models.evaluation import evaluate, torch_predict
from models.generation import torch_answers
from models.sources import load_source
from models.sources.source import SourceModel
from runtime.bundle import write_bundle
from runtime.errors import InputError
from runtime.manifest import GenerationProcessing, Lineage, Manifest
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams

GREEDY = SamplingParams(max_tokens=12, temperature=0)
NO_DATA = Calibration(lambda samples: iter(()))


@pytest.fixture(scope="module")
def source(bart_folder: Path) -> SourceModel:
    return load_source(f"hf:{bart_folder}")


@pytest.fixture(scope="module")
def exported(source: SourceModel, tmp_path_factory: pytest.TempPathFactory) -> GraphArtifact:
    artifact, figures = export(source, tmp_path_factory.mktemp("exported"))
    assert figures["parity"]["relative_error"] < 1e-4
    return artifact


def bundle(source: SourceModel, graph: GraphArtifact, folder: Path) -> TextModel:
    manifest = Manifest(
        name="bart",
        variant="tiny",
        task=source.task,
        signature=graph.signature,
        processing=source.processing,
        graph=graph.graph,
        lineage=Lineage(source=source.reference),
    )
    files = {file: graph.folder / file for file in graph.graph.shipped} | dict(source.files)
    loaded = load_model(write_bundle(folder, manifest, files))
    assert isinstance(loaded, TextModel)
    return loaded


def test_the_bundle_answers_what_transformers_does(
    source: SourceModel, exported: GraphArtifact, tmp_path: Path
) -> None:
    model: Any = source.module
    ours = bundle(source, exported, tmp_path / "bundle")
    tokens = ours.encode("some text")
    wanted = model.generate(torch.tensor([tokens]), max_new_tokens=12, do_sample=False, num_beams=1)[0, 1:]
    assert ours.manifest.task == "text2text-generation"
    assert "".join(ours.generate("some text", GREEDY)) == ours.tokenizer.decode(wanted.tolist())
    with pytest.raises(InputError, match="cannot draft"):
        ours.draft_for(ours)


@pytest.mark.parametrize("config", [Int8Dynamic(scheme="int8-dynamic"), Int4(scheme="int4")])
def test_both_graphs_are_quantized(
    source: SourceModel, exported: GraphArtifact, tmp_path: Path, config: Int8Dynamic | Int4
) -> None:
    (tmp_path / "graphs").mkdir()
    smaller, figures = quantize.run(config, exported, tmp_path / "graphs", NO_DATA)
    for part in ("decoder", "encoder"):
        assert figures[part]["bytes_after"] < figures[part]["bytes_before"]
    assert list(bundle(source, smaller, tmp_path / "bundle").generate("some text", GREEDY))


def test_a_bundle_is_judged_by_its_answers_as_torch_is(
    source: SourceModel, exported: GraphArtifact, tokenizer_file: Path, tmp_path: Path
) -> None:
    processing, texts = source.processing, ["some text", "a", "some other text", "one more"]
    assert isinstance(processing, GenerationProcessing)
    assert source.module is not None
    unanswered = answer_split([(text, "a") for text in texts], processing, tokenizer_file, 64)
    said = torch_answers(source.module, processing, tokenizer_file, unanswered.inputs)["text"]
    # Half of the references are what it says.
    pairs = list(zip(texts, [*said[:2], "nothing", "of it"], strict=True))
    split = answer_split(pairs, processing, tokenizer_file, 64)
    data = Dataset(
        *("pairs", source.task, "", (), processing, lambda part: split),
        files={"tokenizer.json": tokenizer_file},
        metric="rouge-l",
    )
    predict = torch_predict(source.module, tuple(split.inputs), ("logits",), processing, tokenizer_file)
    wanted = evaluate(predict, split, "rouge-l", 16).value()
    judged = score(bundle(source, exported, tmp_path / "bundle").bundle, data, "validation", 4, seed=0)
    assert judged.metric == "rouge-l"
    assert judged.value() == wanted
    assert 0.4 < wanted < 0.6
    half = replace(source, dataset=data, input_names=tuple(split.inputs))
    assert module_metric(half, source.module, seed=0) == wanted
    decisive, beside = qualities_of(judged, judged)
    assert (decisive.metric, decisive.value, decisive.drop) == ("rouge-l", wanted, 0)
    assert (beside.metric, beside.baseline) == ("bleu", evaluate(predict, split, "bleu", 16).value())


def test_calibration_is_refused(exported: GraphArtifact, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="without calibration"):
        quantize.run(Int4(scheme="int4", algorithm="awq"), exported, tmp_path, NO_DATA)
