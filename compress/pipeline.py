"""A recipe, run: source -> torch steps -> export -> graph steps -> finish -> judge -> measure -> gate.

Each arrow is a stage of the content-addressed cache, so a second run does nothing and an interrupted one
goes on where it stopped. It prints nothing (`progress` is told what happens) and publishes nothing.
The trade-off: a stage keeps whole files, so disk is spent to never compute anything twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import gate
from compress.artifact import GraphArtifact
from compress.cache import Stage, digest, library_versions, run_stage
from compress.dependencies import code_of
from compress.description import unpublished
from compress.machine import machine
from compress.publish import check_tag
from compress.recipe import Recipe, check_task
from compress.rehearsal import rehearse
from compress.stages import compare, export, finish, judge, rewrite, train
from compress.step import Figures, GraphMethod, StepConfig, TorchMethod, methods
from models import registry
from models.sources import load_source, source_fingerprint, source_module
from runtime.bundle import Bundle
from runtime.manifest import Evidence, StepRecord

if TYPE_CHECKING:
    from models.sources.source import SourceModel

Progress = Callable[[str, Stage | None], None]


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
        self._fingerprint = digest(
            [
                source_fingerprint(recipe.model, recipe.data, recipe.seed, recipe.full),
                code_of("models.sources", source_module(recipe.model)),
            ]
        )

    def rehearse(self) -> None:
        """Refuse what cannot work before anything is trained; once for one recipe, source and code."""
        steps = self.recipe.steps
        inputs = {
            "parent": self._fingerprint,
            "steps": [settings(step) for step in steps],
            "seed": self.recipe.seed,
            "code": code_of("compress.rehearsal", *(methods()[step.method].run.__module__ for step in steps)),
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
        records = [_record(step, stage) for step, stage in zip(on_torch, done, strict=True)]

        def load() -> "SourceModel":
            return self._restored(on_torch, done) if done else self.source

        parent = done[-1].key if done else self._fingerprint
        return self._stage("export", partial(export.make, load=load, done=records), parent=parent)

    def rewrite(self, parent: Stage, step: StepConfig) -> Stage:
        """`parent`'s graph after one graph step."""
        method = methods()[step.method]
        assert isinstance(method, GraphMethod)
        training = rewrite.Training(self.recipe.model, lambda: self.source, self.recipe.seed)
        more = {"machine": machine()} if method.timed else {}
        make = partial(rewrite.make, method=method, step=step, parent=parent.folder, training=training)
        code = _method_code(method)
        return self._stage(step.variant, make, parent=parent.key, step=settings(step), method=code, **more)

    def finish(self, graph: Stage) -> Stage:
        """`graph` as it ships: a decoder's large embedding is read from its file, and not held twice."""
        if not GraphArtifact.load(graph.folder).may_look_up_much:
            return graph
        stage = self._stage("embedding", partial(finish.make, graph=graph.folder), parent=graph.key)
        return stage if stage.figures["outside"] else graph

    def measure(self, graph: Stage, baseline: Stage) -> Evidence:
        """What `graph` is worth beside `baseline`: quality, and latency on this machine."""
        judged = self._judge(graph)
        judged_baseline = judged if graph is baseline else self._judge(baseline)
        make = partial(
            compare.make,
            bundles=lambda: (self.bundle(graph), self.bundle(baseline)),
            load=lambda: self.source,
            judged=(judged.folder, judged_baseline.folder),
        )
        stage = self._stage(
            "measure",
            make,
            parent=[graph.key, baseline.key, judged.key, judged_baseline.key],
            machine=machine(),
        )
        return Evidence.model_validate(stage.figures)

    def bundle(self, graph: Stage) -> Bundle:
        """The bundle that a graph's stage amounts to, without evidence."""
        recipe = self.recipe
        return unpublished(GraphArtifact.load(graph.folder), recipe.name, recipe.variant_name, recipe.seed)

    def _judge(self, graph: Stage) -> Stage:
        """The metric of one graph on the held-out examples: its scores, example by example."""
        examples = self.recipe.gate.examples
        make = partial(
            judge.make,
            bundle=lambda: self.bundle(graph),
            load=lambda: self.source,
            examples=examples,
            seed=self.recipe.seed,
        )
        return self._stage("judge", make, parent=graph.key, examples=examples)

    def _apply(self, step: StepConfig, on_torch: Sequence[StepConfig], done: Sequence[Stage]) -> Stage:
        """The weights after one torch step, given the stages of those before it."""
        before, done = on_torch[: len(done)], tuple(done)
        method = methods()[step.method]
        assert isinstance(method, TorchMethod)
        make = partial(
            train.make,
            method=method,
            step=step,
            load=lambda: self._restored(before, done),
            seed=self.recipe.seed,
        )
        parent, code = done[-1].key if done else self._fingerprint, _method_code(method)
        more = {"depends": method.depends(step, self.recipe.seed)} if method.depends else {}
        return self._stage(step.variant, make, parent=parent, step=settings(step), method=code, **more)

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

    def _stage(self, name: str, make: "partial[Figures]", **inputs: Any) -> Stage:
        """A stage of `make`, whose key has the code of its function's module besides `inputs`."""
        self._progress(name, None)
        common = {
            "code": code_of(make.func.__module__),
            "seed": self.recipe.seed,
            "versions": dict(library_versions()),
        }
        stage = run_stage(name, {**inputs, **common}, make)
        self._progress(name, stage)
        self.stages.append(stage)
        return stage


def settings(step: StepConfig) -> dict[str, Any]:
    """A step's settings as JSON, as they go into keys and lineages."""
    return step.model_dump(mode="json")


def _record(step: StepConfig, stage: Stage) -> StepRecord:
    return StepRecord(method=step.method, config=settings(step), figures=stage.figures)


def _method_code(method: GraphMethod | TorchMethod) -> str:
    return code_of(method.run.__module__)
