from pathlib import Path

import numpy as np
import pytest

from models.errors import DataError, UnknownModel
from models.evaluation import evaluate, torch_predict
from models.sources import load_source, source_fingerprint


def test_lenet5_is_trained_to_its_floor_and_then_read_from_the_cache() -> None:
    first = load_source("zoo:lenet5")
    assert first.module is not None
    assert first.dataset is not None
    assert not first.module.training
    predict = torch_predict(first.module, first.input_names, first.output_names)
    accuracy = evaluate(predict, first.dataset.validation, "accuracy", 64).value()
    assert accuracy >= 0.97
    assert first.details["value"] == pytest.approx(accuracy)
    assert first.details["reached_floor"]
    second = load_source("zoo:lenet5")
    assert second.details == first.details
    assert second.module is not None
    batch = {"pixel_values": first.dataset.validation.inputs["pixel_values"][:4]}
    again = torch_predict(second.module, second.input_names, second.output_names)
    assert np.array_equal(again(batch)["logits"], predict(batch)["logits"])
    assert (first.name, first.task, first.labels[3]) == ("lenet5", "image-classification", "3")


def test_a_misspelt_member_suggests_the_nearest() -> None:
    with pytest.raises(UnknownModel, match="did you mean 'lenet5'"):
        load_source("zoo:lenet-5")


def test_other_data_replaces_what_it_is_judged_by(tmp_path: Path) -> None:
    assert load_source("zoo:lenet5", "digits").dataset is not None
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 2)))
    with pytest.raises(DataError, match="is for tensor, and zoo:lenet5 is for image-classification"):
        load_source("zoo:lenet5", str(tmp_path / "data.npz"))


def test_the_fingerprint_follows_seed_recipe_and_data() -> None:
    base = source_fingerprint("zoo:gpt-mini", None, 0)
    assert source_fingerprint("zoo:gpt-mini", None, 0) == base
    others = [
        source_fingerprint("zoo:gpt-mini", None, 1),
        source_fingerprint("zoo:gpt-mini", None, 0, full=True),
        source_fingerprint("zoo:gpt-mini", "digits", 0),
        source_fingerprint("zoo:lenet5", None, 0),
    ]
    assert len({base, *others}) == 5
    assert source_fingerprint("zoo:lenet5", None, 0, full=True) == source_fingerprint("zoo:lenet5", None, 0)
