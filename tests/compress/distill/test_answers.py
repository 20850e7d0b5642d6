"""What a teacher says, computed once, and students that learn from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.distill.answers import SCORES, TOKENS, generated, pooled, with_answers, with_sequences
from compress.distill.config import CachedConfig, DistillConfig, SequencesConfig
from compress.distill.losses import soft_target_loss, top_k_loss
from compress.distill.objective import cached_objective, soft_objective
from compress.distill.step import check, run
from compress.distill.student import build_student, example_batch
from compress.errors import StepError
from compress.step import validate
from models.datasets.dataset import IGNORED, Dataset, Split
from models.sources.source import SourceModel
from models.sources.wrappers import EncoderModule
from runtime.manifest import TextProcessing
from runtime.processing import pool

QUICK = {"steps": 3, "batch_size": 4, "threads": 1}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "kept"))
    return tmp_path / "kept"


def configured(**settings: Any) -> DistillConfig:
    return DistillConfig.model_validate({"student": {"layers": "every-other"}, **settings})


def top(logits: torch.Tensor, k: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    scores, tokens = (logits / temperature).log_softmax(-1).topk(k)
    return tokens, scores


def test_all_classes_give_the_whole_divergence_and_few_give_less() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 10), 3 * torch.randn(6, 10)
    whole = float(soft_target_loss(student, teacher, 2.0))
    losses = [float(top_k_loss(student, *top(teacher, k, 2.0), 2.0)) for k in (1, 3, 6, 10)]
    assert losses[-1] == pytest.approx(whole, rel=1e-4)
    assert losses == sorted(losses)
    assert losses[0] > 0
    assert float(top_k_loss(teacher, *top(teacher, 3, 2.0), 2.0)) == pytest.approx(0, abs=1e-5)


def test_the_rest_counts_as_one_class() -> None:
    """By hand: a teacher of (0.5, 0.3, 0.2) of which one is kept, a uniform student."""
    teacher = torch.tensor([[0.5, 0.3, 0.2]]).log()
    loss = float(top_k_loss(torch.zeros(1, 3), *top(teacher, 1, 1.0), 1.0))
    assert loss == pytest.approx(0.5 * np.log(0.5 / (1 / 3)) + 0.5 * np.log(0.5 / (2 / 3)), rel=1e-5)


def test_answers_are_computed_once_and_the_loss_is_that_of_the_teacher_itself(
    decoder: SourceModel, home: Path
) -> None:
    everything = configured(cached={"top_k": 96}, temperature=2.0)
    assert everything.cached is not None
    taught = with_answers(decoder, everything.cached, 2.0)
    assert decoder.module is not None
    student = build_student(everything.student, decoder, 0)
    got = cached_objective(everything)(student, example_batch(taught))
    wanted = soft_objective(everything, decoder.module)(student, example_batch(decoder))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)
    (made,) = home.glob("stages/teacher-*")
    before = made.stat().st_mtime_ns
    with_answers(decoder, everything.cached, 2.0)
    assert made.stat().st_mtime_ns == before
    with_answers(decoder, CachedConfig(top_k=3), 2.0)
    assert len(list(home.glob("stages/teacher-*"))) == 2


def test_answers_of_the_same_weights_in_another_network_are_others(decoder: SourceModel, home: Path) -> None:
    """How weights are used is no weight: a configuration, say, or the code of a layer."""
    assert decoder.module is not None
    with_answers(decoder, CachedConfig(top_k=3), 2.0)
    decoder.module.config.rms_norm_eps = 0.5  # type: ignore[union-attr, assignment]
    for part in decoder.module.modules():
        if hasattr(part, "variance_epsilon"):
            part.variance_epsilon = 0.5  # type: ignore[assignment]
    with_answers(decoder, CachedConfig(top_k=3), 2.0)
    assert len(list(home.glob("stages/teacher-*"))) == 2


def test_a_student_learns_from_answers_on_disk(decoder: SourceModel) -> None:
    config: Any = validate(
        {"method": "distill", "student": {"layers": [0, 2]}, "cached": {"top_k": 8}, "training": QUICK}
    )
    changed, figures = run(config, decoder, 0)
    assert figures["steps"] == 3
    assert changed.dataset is decoder.dataset
    assert decoder.dataset is not None
    assert not {TOKENS, SCORES} & set(decoder.dataset.train.inputs)


def test_answers_are_not_enough_for_what_looks_inside() -> None:
    with pytest.raises(ValueError, match="'hidden' looks inside the teacher"):
        configured(cached={}, hidden={})
    with pytest.raises(ValueError, match="'divergence: forward' only"):
        configured(cached={}, divergence="reverse")


def test_the_likeliest_continuation_is_that_of_a_model_without_a_cache(decoder: SourceModel) -> None:
    assert decoder.module is not None
    prompts = np.array([[1, 2, 3], [7, 8, 9]])
    expected = torch.from_numpy(prompts)
    with torch.no_grad():
        for _ in range(6):
            following = decoder.module(expected).logits[:, -1].argmax(-1, keepdim=True)
            expected = torch.cat([expected, following], 1)
    assert np.array_equal(generated(decoder, prompts, 9, 0.0, 0), expected.numpy())
    drawn = [generated(decoder, prompts, 9, 1.0, seed) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_a_student_reads_what_its_teacher_writes(decoder: SourceModel) -> None:
    source = with_sequences(decoder, SequencesConfig(count=5, prompt=4), 0)
    assert source.dataset is not None
    split = source.dataset.train
    assert len(split) == 5
    assert split.targets is not None
    tokens = split.inputs["input_ids"]
    assert (split.targets[:, :3] == IGNORED).all()
    assert np.array_equal(split.targets[:, 3:-1], tokens[:, 4:])
    assert source.dataset.validation is decoder.dataset.validation  # type: ignore[union-attr]
    config: Any = validate(
        {"method": "distill", "student": {"layers": [0, 2]}, "sequences": {"count": 8}, "training": QUICK}
    )
    _, figures = run(config, decoder, 0)
    assert figures["steps"] == 3


def test_a_model_without_a_cache_writes_nothing(decoder: SourceModel) -> None:
    source = replace(decoder, module=torch.nn.Embedding(96, 96))
    with pytest.raises(StepError, match="need a language model of transformers"):
        generated(source, np.array([[1]]), 4, 0.0, 0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_is_that_of_serving(pooling: Any, normalize: bool) -> None:
    processing = TextProcessing(max_length=8, pooling=pooling, normalize=normalize)
    hidden = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    expected = pool(hidden.numpy(), mask.numpy(), processing)
    np.testing.assert_allclose(pooled(hidden, mask, processing).numpy(), expected, rtol=1e-5)


def test_an_embedding_models_student_learns_its_vectors_without_labels() -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    settings = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    model = BertModel(BertConfig(num_hidden_layers=4, initializer_range=0.3, **settings)).eval()
    rng = np.random.default_rng(0)
    inputs = {"input_ids": rng.integers(0, 64, (64, 7)), "attention_mask": np.ones((64, 7), np.int64)}
    processing, split = TextProcessing(max_length=8, pooling="mean"), Split(inputs, None)
    data = Dataset("texts", "embedding", "0" * 64, (), processing, lambda name: split)
    module, names = EncoderModule(model, "last_hidden_state"), ("last_hidden_state",)
    source = SourceModel(
        "bert", "py:bert", "embedding", processing, (), module, None, tuple(inputs), names, data
    )
    training = {"steps": 60, "batch_size": 16, "learning_rate": 0.005, "threads": 1}
    config: Any = validate({"method": "distill", "student": {"layers": [0, 2]}, "training": training})

    def apart(student: torch.nn.Module) -> float:
        batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.no_grad():
            hidden = [each(*batch.values()) for each in (student, module)]
        ours, theirs = (pooled(each, batch["attention_mask"], processing) for each in hidden)
        return float((ours - theirs).square().mean() / theirs.square().mean())

    untrained = apart(build_student(config.student, source, 0))
    changed, figures = run(config, source, 0)
    assert changed.module is not None
    assert apart(changed.module) < 0.5 * untrained
    assert "teacher" not in figures


def test_what_a_task_has_not_got_is_refused() -> None:
    for settings, task, message in (
        ({"hidden": {}}, "embedding", "leave out 'hidden'"),
        ({"sequences": {}}, "text-classification", "what a language model writes"),
        ({"attention": {}}, "text-generation", "use 'relations'"),
    ):
        with pytest.raises(StepError, match=message):
            check(configured(**settings), task)  # type: ignore[arg-type]
