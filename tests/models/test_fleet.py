import pytest
from typer.testing import CliRunner

from models.cli import app
from models.errors import TrainingError
from models.fleet import train_all


def test_one_failure_takes_no_other_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert train_all(("no-such-model", "lenet5"), 2, ["--seed", "0"]) == ["no-such-model"]
    told = capfd.readouterr()
    assert told.out.startswith("lenet5: accuracy 0.9")
    assert "the zoo has no such model" in told.err


@pytest.mark.parametrize("arguments", [["train"], ["train", "lenet5", "--all"]])
def test_either_one_member_or_all(arguments: list[str]) -> None:
    with pytest.raises(TrainingError, match="name one member of the zoo, or give --all"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
