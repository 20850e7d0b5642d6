"""A graph after a graph step, which may look at the training split alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from compress.artifact import GraphArtifact
from compress.calibration import check_fits, drawn_rows
from compress.description import Description, unpublished
from compress.errors import StepError
from compress.step import Calibration, Figures, GraphMethod, StepConfig
from runtime.manifest import StepRecord
from runtime.processing import Array

if TYPE_CHECKING:
    from models.datasets import Dataset
    from models.evaluation import Evaluation
    from models.sources.source import SourceModel

CALIBRATION_BATCH = 16


@dataclass(frozen=True, slots=True)
class Training:
    """The training split of what `load` gives, to calibrate and judge steps on. `model` is for complaints."""

    model: str
    load: Callable[[], "SourceModel"]
    seed: int

    def dataset(self) -> "Dataset":
        """Raises StepError where there is none."""
        if (dataset := self.load().dataset) is None:
            raise StepError(f"{self.model}: this step needs calibration data; give 'data' in the recipe")
        return dataset

    def inputs(self, samples: int) -> Iterator[dict[str, Array]]:
        """`samples` real inputs, drawn by seed, in batches."""
        dataset, names = self.dataset(), self.load().input_names
        split = dataset.train
        for part in drawn_rows(self.model, dataset, samples, CALIBRATION_BATCH, self.seed):
            yield {name: split.inputs[name][part] for name in names}

    def score(self, graph: GraphArtifact, examples: int) -> "Evaluation":
        """The metric of a graph, beside which its description stands."""
        from compress.measure import score

        return score(
            unpublished(graph, None, "trial", self.seed), self.dataset(), "train", examples, self.seed
        )


def make(folder: Path, method: GraphMethod, step: StepConfig, parent: Path, training: Training) -> Figures:
    """Rewrite the graph in the folder `parent` by `step`."""
    from compress.lora.attach import carry_adapters

    before = GraphArtifact.load(parent)
    after, figures = method.run(step, before, folder, calibration(parent, training))
    carry_adapters(before, after)
    after.save()
    about = Description.load(parent)
    record = StepRecord(method=step.method, config=step.model_dump(mode="json"), figures=figures)
    about.after(record).save(folder, about.files_in(parent))
    return figures


def calibration(parent: Path, training: Training) -> Calibration:
    """What a graph step after the one in `parent` may look at."""

    @cache
    def baseline(examples: int) -> "Evaluation":
        return training.score(GraphArtifact.load(parent), examples)

    def drop(before: GraphArtifact, after: GraphArtifact, examples: int) -> float:
        from compress.lora.attach import carry_adapters
        from compress.measure import drop_between

        about = Description.load(parent)
        about.save(after.folder, about.files_in(parent))
        carry_adapters(before, after)
        return drop_between(training.score(after, examples), baseline(examples))

    def draw(samples: int) -> Iterator[dict[str, Array]]:
        check_fits(training.model, training.dataset(), GraphArtifact.load(parent).signature)
        return training.inputs(samples)

    return Calibration(draw, drop)
