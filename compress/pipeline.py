"""A recipe, run: source -> torch steps -> export -> graph steps -> finish -> judge -> measure -> gate.

Each arrow is a stage of the content-addressed cache, so a second run does nothing and an interrupted one
goes on where it stopped. It prints nothing (`progress` is told what happens) and publishes nothing.
The trade-off: a stage keeps whole files, so disk is spent to never compute anything twice.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compress
from compress import gate
from compress.artifact import GraphArtifact
from compress.cache import Stage, code_fingerprint, library_versions, run_stage
from compress.calibration import check_fits, drawn_rows
from compress.description import Description, unpublished
from compress.errors import StepError
from compress.machine import machine
from compress.publish import check_tag
from compress.recipe import Recipe, check_task
from compress.rehearsal import rehearse
from compress.step import Calibration, Figures, GraphMethod, StepConfig, TorchMethod, methods
from models import registry
from models.sources import load_source, source_fingerprint
from runtime.bundle import Bundle
from runtime.manifest import Evidence, StepRecord
from runtime.processing import Array

if TYPE_CHECKING:
    from models.datasets import Dataset
    from models.evaluation import Evaluation
    from models.sources.source import SourceModel

Progress = Callable[[str, Stage | None], None]

CALIBRATION_BATCH = 16


@dataclass(frozen=True, slots=True)
class Result:
    """What a run made: a measured bundle, standing in the cache and not yet published, and the verdict."""

    bundle: Bundle
    evidence: Evidence
    verdict: gate.Verdict
    stages: tuple[Stage, ...]


def run(recipe: Recipe, progress: Progress = lambda name, stage: None) -> Result:
    """Run `recipe`, or find that it has been run. Raises ModelpressError for whatever cannot work."""
    job = _Job(recipe, progress)
    job.rehearse()
    on_torch = [step for step in recipe.steps if isinstance(methods()[step.method], TorchMethod)]
    baseline = job.export([])
    check_tag(job.bundle(baseline).manifest.tag)
    graph = job.export(on_torch) if on_torch else baseline
    for step in recipe.steps[len(on_torch) :]:
        graph = job.rewrite(graph, step)
    graph, baseline = job.finish(graph), job.finish(baseline)
    evidence = job.measure(graph, baseline)
    bundle = job.bundle(graph)
    manifest = bundle.manifest.model_copy(update={"evidence": evidence})
    verdict = gate.judge(evidence, recipe.gate)
    return Result(Bundle(bundle.path, manifest), evidence, verdict, tuple(job.stages))


class _Job:
    """One run: its recipe, its stages so far, and the source once a stage needs it."""

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        self.recipe = recipe
        self.stages: list[Stage] = []
        self._progress = progress
        if recipe.model.startswith("zoo:"):
            check_task(recipe, registry.get(recipe.model.removeprefix("zoo:")).task)
        self._fingerprint = source_fingerprint(recipe.model, recipe.data, recipe.seed, recipe.full)

    def rehearse(self) -> None:
        """Refuse what cannot work before anything is trained; once for one recipe, source and code."""
        steps = self.recipe.steps
        inputs = {
            "parent": self._fingerprint,
            "steps": [settings(step) for step in steps],
            "seed": self.recipe.seed,
            "code": [_code("."), *(_method_code(methods()[step.method]) for step in steps)],
            "versions": dict(library_versions()),
        }

        def make(folder: Path) -> Figures:
            rehearse(self.recipe)
            return {}

        run_stage("rehearse", inputs, make)

    @cached_property
    def source(self) -> "SourceModel":
        """The unchanged source. A member of the zoo that was never trained is trained here."""
        source = self._load()
        check_task(self.recipe, source.task)
        return source

    def export(self, on_torch: Sequence[StepConfig]) -> Stage:
        """The float32 graph of the source after the torch steps `on_torch`."""
        done: list[Stage] = []
        for step in on_torch:
            done.append(self._apply(step, on_torch, done))

        def make(folder: Path) -> Figures:
            from compress.export.source import export

            source = self._restored(on_torch, done) if done else self.source
            artifact, figures = export(source, folder)
            artifact.save()
            records = [StepRecord(method="source", figures=dict(source.details))]
            records += [_record(step, stage) for step, stage in zip(on_torch, done, strict=True)]
            about = Description.of(source, (*records, StepRecord(method="export", figures=figures)))
            about.save(folder, source.files)
            return figures

        parent = done[-1].key if done else self._fingerprint
        return self._stage("export", make, parent=parent, code=_code("export"))

    def rewrite(self, parent: Stage, step: StepConfig) -> Stage:
        """`parent`'s graph after one graph step."""
        method = methods()[step.method]
        assert isinstance(method, GraphMethod)

        def make(folder: Path) -> Figures:
            from compress.lora.attach import carry_adapters

            before = GraphArtifact.load(parent.folder)
            after, figures = method.run(step, before, folder, self._calibration(parent))
            carry_adapters(before, after)
            after.save()
            about = Description.load(parent.folder)
            files = {name: parent.folder / name for name in about.files}
            about.after(StepRecord(method=step.method, config=settings(step), figures=figures)).save(
                folder, files
            )
            return figures

        # Methods that rewrite graphs share the quantizers' means to do so.
        code = [_method_code(method), _code("export"), _code("quantize")]
        more = {"machine": machine()} if method.timed else {}
        return self._stage(step.variant, make, parent=parent.key, step=settings(step), code=code, **more)

    def finish(self, graph: Stage) -> Stage:
        """`graph` as it ships: a decoder's large embedding is read from its file, and not held twice."""
        if not GraphArtifact.load(graph.folder).may_look_up_much:
            return graph

        def make(folder: Path) -> Figures:
            from compress.embedding import take_out

            after = take_out(GraphArtifact.load(graph.folder), folder)
            if after:
                after.save()
                about = Description.load(graph.folder)
                about.save(folder, {name: graph.folder / name for name in about.files})
            return {"outside": after is not None}

        code = [_code(folder) for folder in (".", "export", "lora", "quantize")]
        stage = self._stage("embedding", make, parent=graph.key, code=code)
        return stage if stage.figures["outside"] else graph

    def measure(self, graph: Stage, baseline: Stage) -> Evidence:
        """What `graph` is worth beside `baseline`: quality, and latency on this machine."""
        judged = self._judge(graph)
        judged_baseline = judged if graph is baseline else self._judge(baseline)

        def make(folder: Path) -> Figures:
            from compress import measure

            evidence = measure.measure(
                self.bundle(graph), self.bundle(baseline), self.source, judged.folder, judged_baseline.folder
            )
            return evidence.model_dump(mode="json")

        parents = [graph.key, baseline.key, judged.key, judged_baseline.key]
        stage = self._stage("measure", make, parent=parents, machine=machine(), code=_code("."))
        return Evidence.model_validate(stage.figures)

    def bundle(self, graph: Stage) -> Bundle:
        """The bundle that a graph's stage amounts to, without evidence."""
        recipe = self.recipe
        return unpublished(GraphArtifact.load(graph.folder), recipe.name, recipe.variant_name, recipe.seed)

    def _judge(self, graph: Stage) -> Stage:
        """The metric of one graph on the held-out examples: its scores, example by example."""
        examples = self.recipe.gate.examples

        def make(folder: Path) -> Figures:
            from compress import measure

            return measure.judge(self.bundle(graph), self.source.dataset, examples, self.recipe.seed, folder)

        return self._stage("judge", make, parent=graph.key, examples=examples, code=_code("."))

    def _apply(self, step: StepConfig, on_torch: Sequence[StepConfig], done: Sequence[Stage]) -> Stage:
        """The weights after one torch step, given the stages of those before it."""
        before, done = on_torch[: len(done)], tuple(done)
        method = methods()[step.method]
        assert isinstance(method, TorchMethod)

        def make(folder: Path) -> Figures:
            from compress.weights import save_weights

            source = self._restored(before, done)
            source, figures = method.run(step, source, self.recipe.seed)
            save_weights(source, folder)
            return figures

        parent = done[-1].key if done else self._fingerprint
        more = {"depends": method.depends(step, self.recipe.seed)} if method.depends else {}
        code = [_method_code(method), _code("."), _code("distill")]
        return self._stage(step.variant, make, parent=parent, step=settings(step), code=code, **more)

    def _restored(self, on_torch: Sequence[StepConfig], done: Sequence[Stage]) -> "SourceModel":
        """A fresh source with the structure that `on_torch` gave it and the weights of the last stage."""
        from compress.weights import load_weights, stored_shapes

        source = self._load()
        for step, stage in zip(on_torch, done, strict=True):
            method = methods()[step.method]
            if isinstance(method, TorchMethod) and method.restore:
                source = method.restore(step, source, stored_shapes(stage.folder))
        if done:
            load_weights(source, done[-1].folder)
        return source

    def _load(self) -> "SourceModel":
        recipe = self.recipe
        return load_source(recipe.model, recipe.data, seed=recipe.seed, full=recipe.full)

    def _calibration(self, parent: Stage) -> Calibration:
        """What a graph step after `parent` may look at: the training split alone."""

        @cache
        def baseline(examples: int) -> "Evaluation":
            return self._on_training(self.bundle(parent), examples)

        def drop(before: GraphArtifact, after: GraphArtifact, examples: int) -> float:
            from compress.lora.attach import carry_adapters
            from compress.measure import drop_between

            about = Description.load(parent.folder)
            about.save(after.folder, {name: parent.folder / name for name in about.files})
            carry_adapters(before, after)
            trial = unpublished(after, None, "trial", self.recipe.seed)
            return drop_between(self._on_training(trial, examples), baseline(examples))

        def draw(samples: int) -> Iterator[dict[str, Array]]:
            check_fits(self.recipe.model, self._dataset(), GraphArtifact.load(parent.folder).signature)
            return self._training_inputs(samples)

        return Calibration(draw, drop)

    def _on_training(self, bundle: Bundle, examples: int) -> "Evaluation":
        from compress.measure import score

        return score(bundle, self._dataset(), "train", examples, self.recipe.seed)

    def _dataset(self) -> "Dataset":
        if self.source.dataset is None:
            raise StepError(
                f"{self.recipe.model}: this step needs calibration data; give 'data' in the recipe"
            )
        return self.source.dataset

    def _training_inputs(self, samples: int) -> Iterator[dict[str, Array]]:
        """`samples` real inputs of the training split, drawn by seed, in batches."""
        dataset = self._dataset()
        split = dataset.train
        for part in drawn_rows(self.recipe.model, dataset, samples, CALIBRATION_BATCH, self.recipe.seed):
            yield {name: split.inputs[name][part] for name in self.source.input_names}

    def _stage(self, name: str, make: Callable[[Path], Figures], **inputs: Any) -> Stage:
        self._progress(name, None)
        stage = run_stage(
            name, {**inputs, "seed": self.recipe.seed, "versions": dict(library_versions())}, make
        )
        self._progress(name, stage)
        self.stages.append(stage)
        return stage


def settings(step: StepConfig) -> dict[str, Any]:
    """A step's settings as JSON, as they go into keys and lineages."""
    return step.model_dump(mode="json")


def _record(step: StepConfig, stage: Stage) -> StepRecord:
    return StepRecord(method=step.method, config=settings(step), figures=stage.figures)


def _method_code(method: GraphMethod | TorchMethod) -> str:
    return code_fingerprint(Path(inspect.getfile(method.run)).parent)


def _code(folder: str) -> str:
    return code_fingerprint(Path(compress.__path__[0], folder))
