import json

import pytest
from typer.testing import CliRunner

from models import registry
from models.cli import app
from models.errors import UnknownModel

runner = CliRunner()


def test_the_zoo_lists_every_member() -> None:
    result = runner.invoke(app, ["zoo"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *registry.names()]
    rows = json.loads(runner.invoke(app, ["zoo", "--json"]).stdout)
    assert [row["name"] for row in rows] == list(registry.names())
    assert next(row for row in rows if row["name"] == "lenet5")["parameters"] == 61_706


def test_members_whose_data_is_not_here_are_listed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPRESS_DATA", raising=False)
    rows = json.loads(runner.invoke(app, ["zoo", "--json"]).stdout)
    assert [row["name"] for row in rows] == list(registry.names())


def test_a_member_shows_its_recipe() -> None:
    shown = json.loads(runner.invoke(app, ["zoo", "gpt-mini", "--json"]).stdout)
    assert shown["training"]["steps"] < shown["full"]["steps"]
    assert "hidden_size: 256" in runner.invoke(app, ["zoo", "gpt-mini"]).stdout


def test_training_prints_what_was_reached() -> None:
    result = runner.invoke(app, ["train", "lenet5"])
    assert result.exit_code == 0
    assert result.stdout.startswith("lenet5: accuracy 0.9")
    record = json.loads(runner.invoke(app, ["train", "lenet5", "--json"]).stdout)
    assert record["reached_floor"]
    listed = runner.invoke(app, ["zoo"]).stdout.splitlines()
    assert not any("not yet" in line for line in listed if line.startswith("lenet5 "))
    shown = json.loads(runner.invoke(app, ["zoo", "lenet5", "--json"]).stdout)
    assert shown["architecture"][0] == "features.0: Conv2d, 156"
    assert len(shown["sample"]["input"].splitlines()) == 8
    assert shown["sample"]["answer"]["probability"] > 0.5


def test_a_misspelt_name_is_a_typed_error() -> None:
    for command in ("zoo", "train"):
        with pytest.raises(UnknownModel, match="did you mean 'lenet5'"):
            runner.invoke(app, [command, "lenet"], catch_exceptions=False)


@pytest.mark.parametrize("seed", ["-1", str(2**64)])
def test_a_seed_that_no_generator_takes_is_refused(seed: str) -> None:
    result = runner.invoke(app, ["train", "lenet5", "--seed", seed])
    assert result.exit_code == 2
    assert "Invalid value for '--seed'" in result.stderr
