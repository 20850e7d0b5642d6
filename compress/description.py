"""What a bundle says of its model besides the graph: task, processing, labels, side files, lineage so far.

It travels beside the graph from stage to stage, so that a run whose stages are all cached loads no model.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from compress.artifact import GraphArtifact
from compress.cache import library_versions
from runtime.bundle import Bundle, file_record
from runtime.manifest import Lineage, Manifest, Processing, Provenance, StepRecord, Task

if TYPE_CHECKING:
    from models.sources.source import SourceModel

FILE = "source.json"


class Description(BaseModel):
    """A source without its weights. `files` stand beside it in the same folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reference: str
    task: Task
    processing: Processing
    labels: tuple[str, ...]
    files: tuple[str, ...]
    details: Mapping[str, Any]
    data_fingerprint: str
    steps: tuple[StepRecord, ...]

    @classmethod
    def of(cls, source: "SourceModel", steps: tuple[StepRecord, ...]) -> "Description":
        """What `source` says of itself, and the `steps` that it has been through."""
        return cls(
            name=source.name,
            reference=source.reference,
            task=source.task,
            processing=source.processing,
            labels=source.labels,
            files=tuple(source.files),
            details=source.details,
            data_fingerprint=source.dataset.fingerprint if source.dataset else "",
            steps=steps,
        )

    @classmethod
    def load(cls, folder: Path) -> "Description":
        """Read what `save` wrote."""
        return cls.model_validate_json((folder / FILE).read_bytes())

    def save(self, folder: Path, files: Mapping[str, Path]) -> None:
        """Write the description and copy the side files into `folder`."""
        for name in self.files:
            shutil.copyfile(files[name], folder / name)
        (folder / FILE).write_text(self.model_dump_json(indent=2))

    def files_in(self, folder: Path) -> Mapping[str, Path]:
        """The side files in `folder`, by name."""
        return {name: folder / name for name in self.files}

    def after(self, step: StepRecord) -> "Description":
        """This description with one more step in its lineage."""
        return self.model_copy(update={"steps": (*self.steps, step)})


def unpublished(graph: GraphArtifact, name: str | None, variant: str, seed: int) -> Bundle:
    """The bundle that a graph's folder amounts to: loadable in place, not yet sealed or measured."""
    about = Description.load(graph.folder)
    shipped = (*graph.graph.shipped, *about.files)
    manifest = Manifest(
        name=name or about.name,
        variant=variant,
        task=about.task,
        signature=graph.signature,
        processing=about.processing,
        labels=about.labels,
        graph=graph.graph,
        lineage=Lineage(source=about.reference, steps=about.steps),
        provenance=Provenance(
            versions=dict(library_versions()), seed=seed, data_fingerprint=about.data_fingerprint
        ),
        files={file: file_record(graph.folder / file) for file in shipped},
    )
    return Bundle(graph.folder, manifest)
