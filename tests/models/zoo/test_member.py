import json
from dataclasses import replace
from pathlib import Path

import pytest

from models import registry
from models.errors import SourceError
from models.registry import TrainingRecipe
from models.zoo.member import CHECKPOINT, RECORD, WEIGHTS, Member, build

BRIEF = TrainingRecipe(steps=3, batch_size=8, learning_rate=1e-3, threads=1)


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    """LeNet-5, trained for three steps into a cache of its own."""
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path))
    return Member(replace(registry.get("lenet5"), training=BRIEF))


def test_declared_parameter_counts_are_true() -> None:
    for name in registry.names():
        spec = registry.get(name)
        assert sum(parameter.numel() for parameter in build(spec).parameters()) == spec.parameters


def test_training_leaves_weights_and_a_record(member: Member) -> None:
    assert member.record() is None
    _, dataset, record = member.obtain()
    assert {path.name for path in member.folder.iterdir()} >= {WEIGHTS, RECORD}
    assert not (member.folder / CHECKPOINT).exists()
    assert record == json.loads((member.folder / RECORD).read_text())
    assert (record["steps"], len(record["curve"]), record["metric"]) == (3, 3, "accuracy")
    assert (record["floor_value"], record["reached_floor"]) == (0.97, False)
    assert dataset.name == "digits"


def test_a_cached_member_is_not_trained_again(member: Member) -> None:
    member.obtain()
    written = (member.folder / WEIGHTS).stat().st_mtime_ns
    member.obtain()
    assert (member.folder / WEIGHTS).stat().st_mtime_ns == written


def test_a_metric_named_later_is_judged_without_training_again(member: Member) -> None:
    _, _, before = member.obtain()
    assert before["also"] == {}
    further = Member(replace(member.spec, also=("accuracy",)))
    _, _, record = further.obtain()
    assert further.folder == member.folder
    assert record == {**before, "also": {"accuracy": before["value"]}} == member.record()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_weights_are_named_and_not_replaced(member: Member, damage: str) -> None:
    member.obtain()
    path = member.folder / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if damage == "flip" else content[:-10])
    if damage == "remove":
        path.unlink()
    with pytest.raises(SourceError, match=rf"{WEIGHTS}: missing or changed .* delete .* to train it again"):
        member.obtain()


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "3"])
def test_a_damaged_record_is_named_and_not_replaced(member: Member, damage: str) -> None:
    member.obtain()
    (member.folder / RECORD).write_text(damage)
    with pytest.raises(SourceError, match=rf"{RECORD}: damaged; delete .* to train it again"):
        member.obtain()
    assert (member.folder / RECORD).read_text() == damage


def test_each_seed_and_recipe_has_its_own_folder(member: Member) -> None:
    longer = Member(replace(member.spec, training=replace(BRIEF, steps=4)))
    folders = {member.folder, Member(member.spec, seed=1).folder, longer.folder}
    assert len(folders) == 3
    assert Member(member.spec, full=True).folder == member.folder


@pytest.mark.slow
@pytest.mark.parametrize(("full", "baseline"), [(False, "bigram"), (True, "trigram")])
def test_gpt_mini_beats_its_n_gram_model(full: bool, baseline: str) -> None:
    _, _, record = Member(registry.get("gpt-mini"), full=full).obtain()
    assert record["value"] < record["baselines"][baseline]
    assert record["reached_floor"]
