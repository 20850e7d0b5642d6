"""One member of the zoo on this machine: trained on first use, then read from the cache as safetensors.

One training at a time: a second process that wants the same model waits for the first. A cached model is
never retrained behind the user's back: when its file is damaged, the message says which folder to delete.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from models.datasets import Dataset, View, dataset_fingerprint, load_dataset
from models.errors import SourceError, StorageError
from models.registry import ModelSpec, TrainingRecipe, get
from models.storage import code_digest, digest, file_digest, home, versions, write_atomically

if TYPE_CHECKING:
    from torch import nn

    from models.evaluation import Evaluation
    from models.training import Objective, TrainingResult

WEIGHTS, RECORD, CHECKPOINT = "model.safetensors", "training.json", "checkpoint.safetensors"
PRETRAINING = "pretraining.safetensors"
EVALUATION_BATCH = 16
_CODE = (
    "models.augmentation",
    "models.batches",
    "models.objectives",
    "models.optimizers",
    "models.training",
)
_LIBRARIES = ("numpy", "torch", "transformers")


@dataclass(frozen=True)
class Member:
    """A member, its seed and which of its recipes; they decide the cache folder."""

    spec: ModelSpec
    seed: int = 0
    full: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything the weights depend on, the machine aside."""
        spec = self.spec
        pretext = spec.pretraining.pretext if spec.pretraining else None
        places = (spec.build, spec.initialise, spec.objective, pretext)
        modules = [place.partition(":")[0] for place in places if place]
        own = (spec.processing,) if spec.processing else ()
        taught = (self.teacher.fingerprint,) if self.teacher else ()
        settings = (spec.recipe(self.full), spec.pretraining, dict(spec.config), places, self.seed)
        parts = (
            code_digest([*_CODE, *modules]),
            repr((*settings, *own, *taught)),
            repr(versions(_LIBRARIES)),
        )
        return digest(*parts, dataset_fingerprint(spec.dataset))

    @property
    def teacher(self) -> Member | None:
        """The member, by the same seed, that this one learns from, if any."""
        pretraining = self.spec.pretraining
        return Member(get(pretraining.teacher), self.seed) if pretraining and pretraining.teacher else None

    @property
    def folder(self) -> Path:
        """Where its weights, its training record and, while it trains, its checkpoint are."""
        return home() / "zoo" / f"{self.spec.name}-{self.fingerprint[:12]}"

    def record(self) -> dict[str, Any] | None:
        """Its training record: recipe, curve, seconds, metrics, baselines; None when it is not trained.

        Raises SourceError for one that is damaged.
        """
        path = self.folder / RECORD
        if not path.is_file():
            return None
        try:
            record: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if "sha256" in record:
                return record
        except (ValueError, TypeError):
            pass
        raise SourceError(f"{path}: damaged; delete {self.folder} to train it again")

    def obtain(self) -> tuple[nn.Module, Dataset, dict[str, Any]]:
        """Its module, data set and record: cached, or trained now from where an earlier run stopped."""
        dataset = load_dataset(self.spec.dataset, View(self.spec.task, self.spec.processing))
        if self.record() is None:
            with self._alone():
                if self.record() is None:
                    _train(self, dataset)
        record = self.record()
        assert record is not None
        module = _load(self, record)
        if record.get("also", {}).keys() != set(self.spec.also):
            record = _judged_further(self, module, dataset, record)
        return module, dataset, record

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock, saying so when another process has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.folder}: cannot be made ({error.strerror}); set MODELPRESS_HOME"
            ) from None
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process is training {self.spec.name}; waiting for it", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def build(spec: ModelSpec) -> nn.Module:
    """The network of `spec` with fresh weights."""
    network: nn.Module = _function(spec.build)(**spec.config)
    return network


def fresh(spec: ModelSpec, dataset: Dataset, seed: int) -> nn.Module:
    """The network of `spec` as its training starts: random by `seed`, or from the data's statistics."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build(spec)
        if spec.initialise:
            _function(spec.initialise)(module, dataset.train)
    return module


def objective_of(spec: ModelSpec) -> Objective:
    """What `spec` is trained by: its own objective, else its task's."""
    from models.objectives import objective_for

    if spec.objective is None:
        return objective_for(spec.task)
    own: Objective = _function(spec.objective)
    return own


def _train(member: Member, dataset: Dataset) -> None:
    from safetensors.torch import save

    spec, recipe, folder = member.spec, member.spec.recipe(member.full), member.folder
    module = fresh(spec, dataset, member.seed)
    pretrained = _pretrain(member, module, dataset) if spec.pretraining else None
    result = _run(member, "training", module, objective_of(spec), recipe, dataset, folder / CHECKPOINT)
    write_atomically(
        folder / WEIGHTS, save({name: value.clone() for name, value in module.state_dict().items()})
    )
    record = {
        "recipe": asdict(recipe),
        "pretraining": asdict(pretrained) if pretrained else None,
        "seed": member.seed,
        **asdict(result),
        **_judged(member, module, dataset),
    }
    record["sha256"] = file_digest(folder / WEIGHTS)
    write_atomically(folder / RECORD, json.dumps(record, indent=2).encode())


def _pretrain(member: Member, module: nn.Module, dataset: Dataset) -> TrainingResult:
    """Train `module` by its pretext, in place. What that adds to the module is dropped afterwards."""
    pretraining = member.spec.pretraining
    assert pretraining is not None
    taught = {"teacher": member.teacher.obtain()[0]} if member.teacher else {}
    whole, objective = _function(pretraining.pretext)(module, dataset, member.seed, **taught)
    path = member.folder / PRETRAINING
    return _run(member, "pretraining", whole, objective, pretraining.training, dataset, path)


def _run(
    member: Member,
    what: str,
    module: nn.Module,
    objective: Objective,
    recipe: TrainingRecipe,
    dataset: Dataset,
    checkpoint: Path,
) -> TrainingResult:
    from models.batches import shuffled_batches
    from models.memory import exhaustion_told
    from models.progress import training_bar
    from models.training import train

    batches = shuffled_batches(dataset.train, recipe, member.seed)
    with training_bar(f"{what} {member.spec.name}") as report, exhaustion_told(recipe):
        return train(
            module, batches, objective, recipe, seed=member.seed, checkpoint=checkpoint, report=report
        )


def _judged(member: Member, module: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """The metrics on the validation split, beside the floor and the baselines it is compared with."""
    from models.ngram import baselines

    spec, floor = member.spec, member.spec.floor_of(member.full)
    evaluation = _evaluated(spec, module, dataset, spec.metric)
    figures = baselines(dataset) if isinstance(floor, str) else {}
    wanted = figures[floor] if isinstance(floor, str) else floor
    value = evaluation.value()
    reached = value >= wanted if evaluation.higher_is_better else value < wanted
    return {
        "metric": spec.metric,
        "value": value,
        "floor": floor,
        "floor_value": wanted,
        "reached_floor": reached,
        "baselines": figures,
        "also": _also(spec, module, dataset, evaluation),
    }


def _judged_further(
    member: Member, module: nn.Module, dataset: Dataset, record: dict[str, Any]
) -> dict[str, Any]:
    """The record with the figures of `also` as the spec names them now. The weights do not hang on them."""
    record = {**record, "also": _also(member.spec, module, dataset)}
    write_atomically(member.folder / RECORD, json.dumps(record, indent=2).encode())
    return record


def _also(
    spec: ModelSpec, module: nn.Module, dataset: Dataset, evaluation: Evaluation | None = None
) -> dict[str, float]:
    """The metrics of `also`, of the answers in `evaluation` where those serve: making them takes long."""
    known = {metric: evaluation and evaluation.judged_by(metric) for metric in spec.also}
    return {
        metric: (found or _evaluated(spec, module, dataset, metric)).value()
        for metric, found in known.items()
    }


def _evaluated(spec: ModelSpec, module: nn.Module, dataset: Dataset, metric: str) -> Evaluation:
    from models.evaluation import evaluate, torch_predict

    names = tuple(dataset.validation.inputs)
    tokenizer = dataset.files.get("tokenizer.json")
    predict = torch_predict(module, names, spec.outputs, dataset.processing, tokenizer)
    return evaluate(predict, dataset.validation, metric, EVALUATION_BATCH, dataset.processing)


def _load(member: Member, record: dict[str, Any]) -> nn.Module:
    from safetensors.torch import load_file

    path = member.folder / WEIGHTS
    if not path.is_file() or file_digest(path) != record["sha256"]:
        raise SourceError(
            f"{path}: missing or changed since it was trained; delete {path.parent} to train it again"
        )
    module = build(member.spec)
    module.load_state_dict(load_file(path))
    return module.eval()


def _function(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
