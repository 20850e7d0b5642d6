"""The bundle's manifest: identity, signature, processing, lineage, evidence and provenance.

Pure data, validated once at the edge; unknown keys are refused. It opens no file: `runtime.bundle` does.
The trade-off: everything a server needs is spelled out here, even where a graph could be asked, so that a
bundle can be described, listed and compared without loading it.
"""

import hashlib
from typing import Final, Literal

from pydantic import Field

from runtime.manifest.evidence import (
    BatchInvariance,
    Evidence,
    Interval,
    Latency,
    Lineage,
    Provenance,
    Quality,
    Sample,
    StepRecord,
)
from runtime.manifest.graph import (
    AdapterGraph,
    AdapterSite,
    DecoderGraph,
    EmbeddingTable,
    EncoderGraph,
    FeedForwardGraph,
    Graph,
    KVLayer,
    PhaseGraph,
    TablePart,
)
from runtime.manifest.processing import (
    CaptionedProcessing,
    Diffusion,
    DrawingProcessing,
    GenerationProcessing,
    GraphProcessing,
    ImageProcessing,
    Processing,
    Subwords,
    Suppression,
    TensorProcessing,
    TextProcessing,
    WordProcessing,
)
from runtime.manifest.signature import DType, Signature, TensorSpec
from runtime.manifest.values import FileName, Frozen

__all__ = [
    "SCHEMA_VERSION",
    "AdapterGraph",
    "AdapterSite",
    "BatchInvariance",
    "CaptionedProcessing",
    "DType",
    "DecoderGraph",
    "Diffusion",
    "DrawingProcessing",
    "EmbeddingTable",
    "EncoderGraph",
    "Evidence",
    "FeedForwardGraph",
    "FileName",
    "FileRecord",
    "Frozen",
    "GenerationProcessing",
    "Graph",
    "GraphProcessing",
    "ImageProcessing",
    "Interval",
    "KVLayer",
    "Latency",
    "Lineage",
    "Manifest",
    "PhaseGraph",
    "Processing",
    "Provenance",
    "Quality",
    "Sample",
    "Signature",
    "StepRecord",
    "Subwords",
    "Suppression",
    "TablePart",
    "Task",
    "TensorProcessing",
    "TensorSpec",
    "TextProcessing",
    "WordProcessing",
]

Task = Literal[
    "image-classification",
    "zero-shot-image-classification",
    "text-classification",
    "token-classification",
    "question-answering",
    "next-token",
    "embedding",
    "text-generation",
    "text2text-generation",
    "node-classification",
    "object-detection",
    "segmentation",
    "image-reconstruction",
    "image-generation",
    "word-vectors",
    "tensor",
]

# Of the manifest; another where an older modelpress could not read it.
SCHEMA_VERSION: Final = 1


class FileRecord(Frozen):
    """One file's checksum (hexadecimal sha256) and size in bytes."""

    sha256: str
    size: int


class Manifest(Frozen):
    """`manifest.json`. `version` is the content hash; `seal` guards the manifest itself against edits."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    variant: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    version: str = ""
    task: Task
    signature: Signature
    processing: Processing = TensorProcessing()
    labels: tuple[str, ...] = ()
    graph: Graph
    lineage: Lineage
    evidence: Evidence | None = None
    provenance: Provenance = Provenance()
    files: dict[FileName, FileRecord] = Field(default_factory=dict)
    seal: str = ""

    @property
    def tag(self) -> str:
        """The name that the store and the service know this bundle by."""
        return f"{self.name}-{self.variant}"

    def content_hash(self) -> str:
        """Sixteen hexadecimal digits over what the model *is*; measurements and times do not count."""
        identity = {"name", "variant", "task", "signature", "processing", "labels", "graph", "files"}
        return _digest(self.model_dump_json(include=identity))[:16]

    def sealed(self) -> "Manifest":
        """This manifest with `version` and `seal` filled in."""
        versioned = self.model_copy(update={"version": self.content_hash(), "seal": ""})
        return versioned.model_copy(update={"seal": _digest(versioned.model_dump_json())})

    def is_intact(self) -> bool:
        """Whether `version` and `seal` are what the content says."""
        return self == self.sealed()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
