import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import bentoml
import numpy as np
import onnx
import pytest
import torch

from compress import step as steps
from compress.errors import RecipeError, StepError
from compress.pipeline import Result, run
from compress.publish import publish
from compress.recipe import parse_recipe
from compress.step import StepConfig, TorchMethod, register
from models.sources.source import SourceModel
from runtime.model import load_model
from runtime.tensor import TensorModel

FACTORY = """
import torch

def network():
    return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
"""
QUANTIZE = "  - {method: quantize, scheme: int8-dynamic}\n"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's own network and data, and an empty cache."""
    (tmp_path / "own_network.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=(x[:, 0] > 0).astype(np.int64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_network", None)
    return tmp_path


def recipe(step_lines: str = "", gate: str = "{max_drop: 1.0}", **more: str) -> str:
    extra = "".join(f"{key}: {value}\n" for key, value in more.items())
    listed = f"steps:\n{step_lines}" if step_lines else ""
    return f"model: py:own_network:network\ndata: data.npz\n{extra}{listed}gate: {gate}\n"


def execute(text: str) -> Result:
    return run(parse_recipe(text))


def test_a_users_own_network_becomes_a_measured_bundle() -> None:
    result = execute(recipe(QUANTIZE))
    manifest = result.bundle.manifest
    assert (manifest.name, manifest.variant) == ("network", "int8-dynamic")
    assert [step.method for step in manifest.lineage.steps] == ["source", "export", "quantize"]
    evidence = result.evidence
    assert evidence.quality is not None
    assert evidence.quality.metric == "accuracy"
    assert evidence.quality.drop_interval.low <= evidence.quality.drop <= evidence.quality.drop_interval.high
    assert evidence.size_bytes < evidence.baseline_size_bytes
    assert evidence.parity["relative_error"] < 1e-4
    assert [latency.workload for latency in evidence.latency] == ["batch 1", "batch 32"]


def test_a_step_judges_its_trials_by_the_metric_on_training_data_alone() -> None:
    step = "  - {method: quantize, scheme: mixed, budget: {max_drop: 0.5, examples: 100}}\n"
    figures = execute(recipe(step)).bundle.manifest.lineage.steps[-1].figures
    assert figures["drop"] <= 0.5
    # Of accuracies over 100 examples.
    assert all(round(trial["drop"] * 100, 6).is_integer() for trial in figures["trials"])
    assert figures["bits_per_weight"] == min(trial["bits"] for trial in figures["trials"])


def test_the_bundle_computes_what_torch_computes() -> None:
    result = execute(recipe())
    model = load_model(result.bundle, threads=1)
    assert isinstance(model, TensorModel)
    from models.sources import load_source

    module = load_source("py:own_network:network", "data.npz").module
    assert module is not None
    x = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(next(iter(model.run({"x": x}).values())), expected, rtol=1e-4, atol=1e-6)


def test_a_second_run_finds_every_stage(workplace: Path) -> None:
    first, again = execute(recipe(QUANTIZE)), execute(recipe(QUANTIZE))
    assert not any(stage.cached for stage in first.stages)
    assert all(stage.cached for stage in again.stages)
    assert again.bundle.manifest == first.bundle.manifest


def test_two_recipes_share_the_stages_they_have_in_common() -> None:
    execute(recipe())
    result = execute(recipe(QUANTIZE))
    cached = [stage.folder.name.split("-")[0] for stage in result.stages if stage.cached]
    assert cached == ["export", "judge"]


@pytest.mark.parametrize("change", ["seed", "data", "code"])
def test_what_a_result_depends_on_makes_it_anew(workplace: Path, change: str) -> None:
    execute(recipe())
    if change == "data":
        x = np.ones((200, 8), np.float32)
        np.savez(workplace / "data.npz", x=x, labels=np.arange(200) % 2)
    if change == "code":
        (workplace / "own_network.py").write_text(FACTORY.replace("64", "32"))
    result = execute(recipe(seed="1") if change == "seed" else recipe())
    assert not any(stage.cached for stage in result.stages)
    hidden = onnx.load(result.bundle.path / "model.onnx").graph.initializer
    assert (32 in {size for each in hidden for size in each.dims}) == (change == "code")


STAGES_MADE = """
import sys
from compress.pipeline import run
from compress.recipe import parse_recipe
made = [stage for stage in run(parse_recipe(sys.argv[1])).stages if not stage.cached]
print([stage.folder.name.rpartition("-")[0] for stage in made])
"""


def test_an_edit_of_what_a_stage_imports_makes_it_anew_and_no_other(workplace: Path) -> None:
    """In a copy of the project: of what masks are held by, and of what a bundle is judged on."""
    project = Path(__file__).parents[2]
    for package in ("compress", "models", "runtime"):
        shutil.copytree(project / package, workplace / package, ignore=shutil.ignore_patterns("__pycache__"))
    text = recipe("  - {method: qat, finetune: {steps: 1}}\n")

    def made() -> list[str]:
        command = [sys.executable, "-c", STAGES_MADE, text]
        environment = {**os.environ, "PYTHONPATH": str(workplace)}
        ran = subprocess.run(command, cwd=workplace, env=environment, check=True, stdout=subprocess.PIPE)
        found: list[str] = ast.literal_eval(ran.stdout.decode())
        return found

    assert made() == ["export", "qat", "export", "judge", "judge", "measure"]
    for edited in ("compress/prune/hold.py", "runtime/scheduler.py", "models/zoo/stylegan.py"):
        with (workplace / edited).open("a") as file:
            file.write("# edited\n")
    assert made() == ["qat", "export", "judge", "judge", "measure"]


def test_the_gate_refuses_what_is_worse_or_slower() -> None:
    result = execute(recipe(QUANTIZE, "{max_drop: 1.0, min_speedup: 1000}"))
    assert not result.verdict.passed
    assert "asked 1000x" in result.verdict.failures[0]


@pytest.mark.parametrize("variant", ["v" * 55, "v" * 56])
def test_a_name_that_the_store_refuses_is_told_before_the_steps(variant: str, workplace: Path) -> None:
    text = recipe(QUANTIZE, variant=variant)
    if len(f"network-{variant}") <= 63:
        tag, stored = publish(execute(text).bundle)
        assert tag == f"network-{variant}:{stored.manifest.version}"
        bentoml.models.delete(tag)
        return
    with pytest.raises(RecipeError, match="64 characters, and a model store takes 63; give a shorter 'name'"):
        execute(text)
    stages = {path.name.split("-")[0] for path in (workplace / "cache" / "stages").iterdir()}
    assert stages == {"rehearse", "export"}


def test_too_few_calibration_samples_are_refused() -> None:
    static = "  - {method: quantize, scheme: int8-static, calibration: {samples: 161}}\n"
    with pytest.raises(StepError, match=r"161 calibration samples asked, but .* has 160"):
        execute(recipe(static))


class ScaleConfig(StepConfig):
    method: Literal["scale"] = "scale"
    factor: float


class Scaled(torch.nn.Module):
    """Another structure: the network, and a factor that is part of its weights."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.factor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) * self.factor


def scale(config: ScaleConfig, source: SourceModel, seed: int) -> tuple[SourceModel, dict[str, Any]]:
    CALLS.append(config.factor)
    changed = restructure(config, source, {})
    assert isinstance(changed.module, Scaled)
    changed.module.factor.data.fill_(config.factor)
    return changed, {"factor": config.factor}


def restructure(config: ScaleConfig, source: SourceModel, shapes: Any) -> SourceModel:
    from dataclasses import replace

    assert source.module is not None
    return replace(source, module=Scaled(source.module).eval())


CALLS: list[float] = []


@pytest.fixture
def scale_method() -> Any:
    """A method of our own: nothing but a registration."""
    register(TorchMethod("scale", ScaleConfig, scale, restructure))
    CALLS.clear()
    yield
    steps._methods.pop("scale")


def test_torch_steps_come_before_the_export_and_are_cached(scale_method: Any) -> None:
    two = "  - {method: scale, factor: 3}\n  - {method: scale, factor: 0.5}\n" + QUANTIZE
    result = execute(recipe(two))
    assert [step.method for step in result.bundle.manifest.lineage.steps] == [
        "source",
        "scale",
        "scale",
        "export",
        "quantize",
    ]
    plain, scaled = (load_model(r.bundle, threads=1) for r in (execute(recipe()), result))
    assert isinstance(plain, TensorModel)
    assert isinstance(scaled, TensorModel)
    x = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    scaled_output, plain_output = (next(iter(model.run({"x": x}).values())) for model in (scaled, plain))
    ratio = scaled_output / plain_output
    assert np.median(ratio) == pytest.approx(1.5, rel=0.05)
    execute(recipe("  - {method: scale, factor: 3}\n  - {method: scale, factor: 2}\n"))
    assert CALLS == [3, 0.5, 2]


def test_a_torch_step_after_a_graph_step_is_refused_when_read(scale_method: Any) -> None:
    with pytest.raises(RecipeError, match="'scale' changes the torch model, but 'quantize' before it"):
        parse_recipe(recipe(QUANTIZE + "  - {method: scale, factor: 3}\n"))


KILL = """
import sys
from compress.pipeline import run
from compress.recipe import parse_recipe

def progress(name, stage):
    if name == sys.argv[2] and stage is None:
        print("there", flush=True)
        sys.stdin.read()

run(parse_recipe(sys.argv[1]), progress)
"""


def test_after_kill_9_it_resumes_from_the_last_finished_stage(workplace: Path) -> None:
    text = recipe(QUANTIZE)
    command = [sys.executable, "-c", KILL, text, "judge"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        os.kill(process.pid, signal.SIGKILL)
    result = execute(text)
    assert [stage.cached for stage in result.stages] == [True, True, False, False, False]
