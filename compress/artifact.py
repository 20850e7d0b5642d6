"""What passes between graph stages: one ONNX file with what the runtime must know to run it."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from runtime.manifest import DecoderGraph, Graph, Signature

DESCRIPTION = "graph.json"

# Bytes of a decoder's embedding from which on the memory is worth a few microseconds a step.
LARGE_EMBEDDING = 8 << 20


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: Graph
    signature: Signature


@dataclass(frozen=True, slots=True)
class GraphArtifact:
    """A graph in a folder of its own, beside its description."""

    folder: Path
    graph: Graph
    signature: Signature

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / self.graph.file

    @property
    def size_bytes(self) -> int:
        """What the graph takes on disk, weights included."""
        return sum((self.folder / file).stat().st_size for file in self.graph.files)

    @property
    def may_look_up_much(self) -> bool:
        """Whether it may be a decoder that looks up in a large embedding, told without reading the graph."""
        decoder = isinstance(self.graph, DecoderGraph) and not self.graph.encoder
        return decoder and self.size_bytes >= LARGE_EMBEDDING

    def at(self, folder: Path) -> "GraphArtifact":
        """The same description for a graph that a step writes to `folder`."""
        return replace(self, folder=folder)

    def save(self) -> None:
        """Write the description beside the graph."""
        description = _Description(graph=self.graph, signature=self.signature)
        (self.folder / DESCRIPTION).write_text(description.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> "GraphArtifact":
        """Read what `save` wrote."""
        description = _Description.model_validate_json((folder / DESCRIPTION).read_bytes())
        return cls(folder, description.graph, description.signature)
