import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import SourceError
from models.evaluation import evaluate, metric_for, torch_predict
from models.sources import load_source, source_fingerprint

SOURCE = """
import torch
def Small():
    return torch.nn.Linear(2, 3)
def wrong():
    return 5
def broken():
    raise RuntimeError("no weights here,\\nnor there")
def leaving():
    raise SystemExit(3)
def weightless():
    with torch.device("meta"):
        return torch.nn.Linear(2, 3)
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The user's module, in the working folder, under a name that no other test has imported."""
    name = "user_" + "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    (tmp_path / f"{name}.py").write_text(SOURCE)
    x = np.random.default_rng(0).normal(size=(10, 2))
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(10) % 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    return name


def test_inputs_and_task_come_from_the_data(module: str) -> None:
    source = load_source(f"py:{module}:Small", "data.npz")
    assert (source.name, source.task, source.input_names) == ("small", "tensor", ("x",))
    assert source.module is not None
    assert source.dataset is not None
    assert metric_for(source.dataset) == "accuracy"
    assert source.dataset.train.inputs["x"].dtype == np.float32
    predict = torch_predict(source.module, source.input_names, source.output_names)
    assert evaluate(predict, source.dataset.validation, "accuracy", 4).scores.shape == (2, 1)


def test_the_seed_decides_random_weights(module: str) -> None:
    weights = [load_source(f"py:{module}:Small", "data.npz", seed=seed).module for seed in (0, 0, 1)]
    first, second, third = (next(iter(each.parameters())) for each in weights if each is not None)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_the_fingerprint_follows_the_file(module: str) -> None:
    before = source_fingerprint(f"py:{module}:Small", "data.npz", 0)
    Path(f"{module}.py").write_text(SOURCE + "# changed\n")
    assert source_fingerprint(f"py:{module}:Small", "data.npz", 0) != before


def test_the_fingerprint_follows_the_weights_that_the_factory_reads(module: str) -> None:
    """A network that was trained again is another network, though its code is the same."""
    trained = "def Trained():\n    it = Small()\n    it.load_state_dict(torch.load('w.pt'))\n    return it\n"
    Path(f"{module}.py").write_text(SOURCE + trained)
    reference = f"py:{module}:Trained"
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        torch.save(torch.nn.Linear(2, 3).state_dict(), "w.pt")
        found.append(source_fingerprint(reference, "data.npz", 0))
    assert found[0] == found[1] != found[2]


def test_the_fingerprint_follows_the_file_that_a_layer_is_from(module: str) -> None:
    layers = f"{module}_layers"
    text = "import torch\nclass Own(torch.nn.Linear):\n    pass\n"
    Path(f"{layers}.py").write_text(text)
    Path(f"{module}.py").write_text(f"import {layers}\ndef Small():\n    return {layers}.Own(2, 3)\n")
    before = source_fingerprint(f"py:{module}:Small", "data.npz", 0)
    Path(f"{layers}.py").write_text(text + "# changed\n")
    assert source_fingerprint(f"py:{module}:Small", "data.npz", 0) != before


@pytest.mark.parametrize("file", ["", "_size", "_late"])
def test_an_edit_is_seen_in_the_process_that_has_run_the_old_code(module: str, file: str) -> None:
    """Of the factory's file, and of what that imports at its top and when it is called; as long as before."""
    texts = {
        "": f"import torch, {module}_size as size\nhere = 2\n"
        f"def Small():\n    import {module}_late as late\n"
        "    first, second = torch.nn.Linear(here, size.now), torch.nn.Linear(size.now, late.now)\n"
        "    return torch.nn.Sequential(first, second)\n",
        "_size": "now = 2\n",
        "_late": "now = 2\n",
    }
    for name, text in texts.items():
        Path(f"{module}{name}.py").write_text(text)
    reference = f"py:{module}:Small"

    def shapes() -> list[list[int]]:
        made = load_source(reference, "data.npz").module
        assert made is not None
        return [list(parameter.shape) for name, parameter in made.named_parameters() if "weight" in name]

    assert shapes() == [[2, 2], [2, 2]]
    before = source_fingerprint(reference, "data.npz", 0)
    Path(f"{module}{file}.py").write_text(texts[file].replace("= 2", "= 4"))
    assert shapes() == {"": [[2, 4], [2, 2]], "_size": [[4, 2], [2, 4]], "_late": [[2, 2], [4, 2]]}[file]
    assert source_fingerprint(reference, "data.npz", 0) != before


def test_what_was_not_edited_is_imported_once_and_the_callers_own_is_the_callers(
    module: str,
) -> None:
    sys.path.append(str(Path.cwd()))
    Path(f"{module}_callers.py").write_text("count = 1\n")
    callers = import_module(f"{module}_callers")
    with Path(f"{module}.py").open("a") as file:
        file.write(f"import {module}_callers\n")
    load_source(f"py:{module}:Small", "data.npz")
    ours = sys.modules[module]
    load_source(f"py:{module}:Small", "data.npz")
    assert sys.modules[module] is ours
    Path(f"{module}_callers.py").write_text("count = 2\n")
    Path(f"{module}.py").write_text(Path(f"{module}.py").read_text() + "# edited\n")
    load_source(f"py:{module}:Small", "data.npz")
    assert sys.modules[module] is not ours
    assert sys.modules[module + "_callers"] is callers


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("wrong", "returned a int"),
        ("broken", "failed: RuntimeError: no weights here, nor there"),
        ("leaving", "failed: SystemExit: 3"),
        ("weightless", "failed: NotImplementedError: Cannot copy out of meta tensor"),
        ("number", "has no attribute 'number' to call"),
        ("absent", "has no attribute 'absent'"),
    ],
)
def test_a_factory_that_gives_no_module_is_named(module: str, factory: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_source(f"py:{module}:{factory}", "data.npz")


@pytest.mark.parametrize("text", ["unknown", "raise SystemExit(3)", "raise ValueError('one\\ntwo')", "def ("])
def test_a_module_that_cannot_be_imported_is_one_clear_line(module: str, text: str) -> None:
    Path(f"{module}.py").write_text(text + "\n")
    with pytest.raises(SourceError, match=f"py:{module}:f failed") as caught:
        load_source(f"py:{module}:f", "data.npz")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(module: str) -> None:
    with pytest.raises(SourceError, match="no module 'no_such'"):
        load_source("py:no_such:f", "data.npz")
    with pytest.raises(SourceError, match="write py:package"):
        load_source(f"py:{module}", "data.npz")
    with pytest.raises(SourceError, match="needs data"):
        load_source(f"py:{module}:Small")


OWN = """
import torch
from torch import nn

ONLY = nn.Linear(2, 3)

def only():
    return ONLY

def frozen():
    return nn.Linear(2, 3).requires_grad_(False)

@torch.inference_mode()
def inferring():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))

def lazy():
    return nn.Sequential(nn.LazyLinear(3))

class Versioned(nn.Linear):
    def get_extra_state(self):
        return {"version": 1}

def versioned():
    return Versioned(2, 3)

class Scaled(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)
        self.register_buffer("scale", torch.tensor(float(open("scale.txt").read())), persistent=False)

def scaled():
    return Scaled()

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, left, middle=None, right=None):
        return self.layer(left) - (0 if right is None else self.layer(right))

def pair():
    return Pair()
"""


@pytest.fixture
def own(module: str) -> str:
    Path(f"{module}.py").write_text(OWN)
    return f"py:{module}"


def test_a_module_that_the_factory_keeps_is_not_changed(own: str) -> None:
    """Two loads stand for the original and for what becomes of it."""
    first, second = (load_source(f"{own}:only", "data.npz").module for _ in range(2))
    assert first is not None
    assert second is not None
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert all(parameter.any() for parameter in second.parameters())


@pytest.mark.parametrize("factory", ["only", "frozen", "inferring"])
def test_the_weights_can_be_changed_and_learn(own: str, factory: str) -> None:
    made = load_source(f"{own}:{factory}", "data.npz").module
    assert made is not None
    assert all(each.requires_grad for each in made.parameters())
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            tensor.zero_()


def test_a_single_layer_can_be_replaced(own: str) -> None:
    made = load_source(f"{own}:only", "data.npz").module
    assert made is not None
    assert [name for name, each in made.named_modules() if isinstance(each, torch.nn.Linear)] == ["0"]


@pytest.mark.parametrize(
    ("factory", "message"), [("lazy", "'0.weight' has no shape yet"), ("versioned", "is no tensor")]
)
def test_a_state_that_could_not_be_stored_is_refused(own: str, factory: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        source_fingerprint(f"{own}:{factory}", "data.npz", 0)


def test_the_fingerprint_follows_buffers_that_are_not_saved(own: str) -> None:
    found = []
    for scale in (1, 1, 2):
        Path("scale.txt").write_text(str(scale))
        found.append(source_fingerprint(f"{own}:scaled", "data.npz", 0))
    assert found[0] == found[1] != found[2]


def test_arrays_go_where_the_forward_has_their_names(own: str) -> None:
    x = np.zeros((4, 2), np.float32)
    np.savez("both.npz", right=x, middle=x, left=x)
    assert load_source(f"{own}:pair", "both.npz").input_names == ("left", "middle", "right")
    np.savez("other.npz", second=x, first=x)
    assert load_source(f"{own}:pair", "other.npz").input_names == ("second", "first")
    np.savez("gap.npz", right=x, left=x)
    with pytest.raises(SourceError, match="takes 'middle' before 'right'"):
        load_source(f"{own}:pair", "gap.npz")


def test_halves_become_what_the_weights_are(module: str) -> None:
    np.savez("half.npz", x=np.zeros((4, 2), np.float16), labels=np.arange(4) % 3)
    dataset = load_source(f"py:{module}:Small", "half.npz").dataset
    assert dataset is not None
    assert dataset.train.inputs["x"].dtype == np.float32


def test_the_layers_of_torchs_transformer_are_called(own: str) -> None:
    """What a step puts in their place would be read past, or has no weight to read."""
    Path(f"{own[3:]}.py").write_text(
        "from torch import nn\ndef encoder():\n"
        "    return nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1)\n"
    )
    np.savez("x.npz", x=np.zeros((4, 3, 4), np.float32))
    module = load_source(f"{own}:encoder", "x.npz").module
    assert module is not None
    module.set_submodule("layers.0.linear1", torch.nn.ConstantPad1d((0, 4), 0.0))
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, 4)).shape == (2, 3, 4)
