"""Members of the zoo in their smallest form, untrained, as tests take them through the pipeline."""

from dataclasses import replace
from pathlib import Path

from compress.artifact import GraphArtifact
from compress.description import Description, unpublished
from models import registry
from models.datasets import View, load_dataset
from models.registry import ModelSpec
from models.sources.source import SourceModel
from models.sources.zoo import as_source
from models.zoo.member import fresh
from runtime.bundle import Bundle, write_bundle


def tiny(name: str) -> tuple[ModelSpec, SourceModel]:
    """The member and its source. Raises DataError where its data is not here."""
    spec = registry.get(name)
    spec = replace(spec, config={**spec.config, **spec.tiny}, initialise=None)
    dataset = load_dataset(spec.dataset, View(spec.task, spec.processing))
    return spec, as_source(spec, fresh(spec, dataset, seed=0).eval(), dataset, {})


def bundled(source: SourceModel, artifact: GraphArtifact, target: Path) -> Bundle:
    """A bundle at `target` of what became of the source; its variant is called as the artifact's folder."""
    artifact.save()
    Description.of(source, ()).save(artifact.folder, source.files)
    bundle = unpublished(artifact, None, artifact.folder.name, 0)
    files = {name: bundle.path / name for name in bundle.manifest.files}
    return write_bundle(target, bundle.manifest, files)
