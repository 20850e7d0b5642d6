"""The bundle's manifest: identity, signature, processing, lineage, evidence and provenance.

Pure data, validated once at the edge; unknown keys are refused. It opens no file: `runtime.bundle` does.
The trade-off: everything a server needs is spelled out here, even where a graph could be asked, so that a
bundle can be described, listed and compared without loading it.
"""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal[
    "image-classification",
    "zero-shot-image-classification",
    "text-classification",
    "token-classification",
    "question-answering",
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
DType = Literal["float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class Frozen(BaseModel):
    """A value object: immutable, and strict about its keys.

    A field that is added to one is left out of its JSON, and so of the hash, where it has its default:
    bundles made before there was such a field stay whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(Frozen):
    """One named tensor. A string in `shape` is a symbolic axis, such as `batch` or `sequence`."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


class Signature(Frozen):
    """The tensors a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class TensorProcessing(Frozen):
    """Tensors go in and out as they are."""

    kind: Literal["tensor"] = "tensor"


class Suppression(Frozen):
    """Which of a detector's boxes are answered: the likely ones, and of those that overlap, the likeliest.

    `iou` is the intersection over union from which a less likely box of the same class goes.
    """

    score: float = 0.25
    iou: float = 0.5
    most: int = 100


class ImageProcessing(Frozen):
    """An image becomes float32 [channels, height, width]: resized, times `rescale`, minus mean, over std.

    A detector's boxes go through `suppression`.
    """

    kind: Literal["image"] = "image"
    mode: Literal["L", "RGB"]
    height: int
    width: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    suppression: Suppression | None = Field(default=None, exclude_if=lambda suppression: suppression is None)


class TextProcessing(Frozen):
    """A text becomes input_ids and attention_mask, int64 [batch, sequence], padded on the right.

    Longer texts are truncated to `max_length` tokens (the special tokens included). Of a `pair`, a question
    and its context, only the context is.
    """

    kind: Literal["text"] = "text"
    tokenizer: FileName = "tokenizer.json"
    max_length: int
    pad_id: int = 0
    token_type_ids: bool = False
    pooling: Literal["none", "mean", "cls"] = "none"
    normalize: bool = False
    pair: bool = Field(default=False, exclude_if=lambda pair: not pair)


class CaptionedProcessing(Frozen):
    """An image goes in beside captions, and each caption is answered for; the bundle's labels by default.

    The image becomes `pixel_values` as `image` says; its captions input_ids and attention_mask, int64
    [batch, captions, max_length of `text`], padded to that length.
    """

    kind: Literal["captioned"] = "captioned"
    image: ImageProcessing
    text: TextProcessing


class GenerationProcessing(Frozen):
    """A prompt becomes tokens, and generation ends at any of `eos_ids`.

    `chat_template` is Jinja that sets its own special tokens. Where the prompt is the source of an encoder,
    the answer begins after `start_ids`.
    """

    kind: Literal["generation"] = "generation"
    tokenizer: FileName = "tokenizer.json"
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    chat_template: str | None = Field(default=None, exclude_if=lambda template: template is None)
    start_ids: tuple[int, ...] = Field(default=(), exclude_if=lambda start_ids: not start_ids)


class GraphProcessing(Frozen):
    """A graph becomes features float32 [batch, nodes, width] and edges int64 [batch, edges, 2].

    An edge is a pair of node numbers, source and target. Smaller graphs of a batch are padded: with zeros,
    and with edges of -1.
    """

    kind: Literal["graph"] = "graph"
    width: int


class Diffusion(Frozen):
    """A drawing begins as noise at time `timesteps`, and the graph runs `steps` times to take it away."""

    timesteps: int = 200
    steps: int = 10


class DrawingProcessing(Frozen):
    """A label becomes `label` int64 [batch] and `noise` float32 [batch, *noise], drawn by a seed.

    Where the graph is a step of `diffusion`, `timestep` int64 [batch] goes in too. Pixels come out in
    [-1, 1].
    """

    kind: Literal["drawing"] = "drawing"
    noise: tuple[int, ...]
    diffusion: Diffusion | None = None


class Subwords(Frozen):
    """The pieces that a word's vector is summed from: n-grams of `shortest` to `longest` characters.

    Each is hashed into one of `buckets`; a word has at most `most` of them, itself included.
    """

    shortest: int = Field(default=3, ge=1)
    longest: int = 5
    buckets: int = Field(ge=1)
    most: int = Field(ge=1)


class WordProcessing(Frozen):
    """A word becomes `word_ids` int64 [batch], its place among the labels.

    With `subwords` it becomes `subword_ids` int64 [batch, most], padded with zeros, and need not be a label.
    """

    kind: Literal["word"] = "word"
    subwords: Subwords | None = None


Processing = Annotated[
    TensorProcessing
    | ImageProcessing
    | TextProcessing
    | CaptionedProcessing
    | GenerationProcessing
    | GraphProcessing
    | DrawingProcessing
    | WordProcessing,
    Field(discriminator="kind"),
]


class FeedForwardGraph(Frozen):
    """One graph, run once per batch."""

    kind: Literal["feed-forward"] = "feed-forward"
    file: FileName = "model.onnx"

    @property
    def files(self) -> tuple[str, ...]:
        """The graph's files."""
        return (self.file,)

    @property
    def shipped(self) -> tuple[str, ...]:
        """What a bundle of it holds."""
        return self.files


class KVLayer(Frozen):
    """One layer's cache: keys and values are [batch, heads, capacity, head_dim] each."""

    heads: int
    head_dim: int


class AdapterSite(Frozen):
    """One linear layer that adapters may change: float32 factors A [inputs, rank] and B [rank, outputs].

    `name` is the layer's in the model. `reads` and `writes` are tensors of the graph, `width` the columns of
    the latter; the layer's outputs may be some of them only, from column `offset` on.
    """

    name: str
    inputs: int
    outputs: int
    reads: str
    writes: str
    width: int
    offset: int = 0


class AdapterGraph(Frozen):
    """A second graph of the same decoder that takes low-rank adapters; its weights are in the first's file.

    `files` are the adapters that come with the bundle, by name.
    """

    file: FileName = "decoder.adapted.onnx"
    sites: tuple[AdapterSite, ...]
    files: dict[str, FileName] = {}


class PhaseGraph(Frozen):
    """Another graph of the same decoder, over the same cache, for calls of `from_tokens` tokens and more."""

    from_tokens: int = Field(ge=2)
    file: FileName


class EncoderGraph(Frozen):
    """What reads the source of an encoder-decoder: tokens in, the cross-attention's keys and values out.

    `layers` are the decoder's. Sources have up to `context_length` tokens.
    """

    file: FileName = "encoder.onnx"
    layers: tuple[KVLayer, ...]
    kv_dtype: Literal["float32", "float16"] = "float32"
    context_length: int


class DecoderGraph(Frozen):
    """A decoder over KV buffers that the caller owns; the layers may differ (pruned models do).

    `file` runs every call, unless `phases` name graphs that are faster from some size of a call on. With an
    `encoder` it attends to a source, too.
    """

    kind: Literal["decoder"] = "decoder"
    file: FileName = "decoder.onnx"
    layers: tuple[KVLayer, ...]
    kv_dtype: Literal["float32", "float16", "int8"] = "float32"
    vocab_size: int
    context_length: int
    adapters: AdapterGraph | None = Field(default=None, exclude_if=lambda adapters: adapters is None)
    phases: tuple[PhaseGraph, ...] = Field(default=(), exclude_if=lambda phases: not phases)
    encoder: EncoderGraph | None = Field(default=None, exclude_if=lambda encoder: encoder is None)

    @property
    def files(self) -> tuple[str, ...]:
        """The graphs' files, each once."""
        encoder = (self.encoder.file,) if self.encoder else ()
        return tuple(dict.fromkeys((self.file, *(phase.file for phase in self.phases), *encoder)))

    @property
    def shipped(self) -> tuple[str, ...]:
        """Those files, and what adapters need."""
        more = (self.adapters.file, *self.adapters.files.values()) if self.adapters else ()
        return (*self.files, *more)


Graph = Annotated[FeedForwardGraph | DecoderGraph, Field(discriminator="kind")]


class StepRecord(Frozen):
    """One step of the lineage: what was asked, and what it measured."""

    method: str
    config: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    seconds: float = 0.0


class Lineage(Frozen):
    """Where a bundle comes from: its source, and every step applied to it, in order."""

    source: str
    steps: tuple[StepRecord, ...] = ()


class Interval(Frozen):
    """A 95% interval."""

    low: float
    high: float


class Quality(Frozen):
    """A metric of the shipped graph beside the baseline's, on the same examples.

    `drop` is how much worse the variant is: absolute for a score in [0, 1], relative for a perplexity.
    Negative means better. Its interval comes from a paired bootstrap over examples.
    """

    metric: str
    higher_is_better: bool
    value: float
    interval: Interval
    baseline: float
    drop: float
    drop_interval: Interval
    examples: int


class Latency(Frozen):
    """Medians of interleaved runs of the variant and the baseline on one machine, in milliseconds."""

    workload: str
    median_ms: float
    p90_ms: float
    baseline_median_ms: float
    speedup: float
    speedup_interval: Interval
    runs: int


class Sample(Frozen):
    """One input and what the shipped graph answered, for people to read."""

    input: str
    output: str
    baseline: str


class BatchInvariance(Frozen):
    """What decoding in a batch changes: the logits of the same sequences alone and together.

    `deviation` is the largest difference of a logit, beside the largest logit; `changed` of `tokens` greedy
    choices differ. Zero and zero where the kernels compute each row by itself.
    """

    batch: int
    deviation: float
    largest_logit: float
    changed: int
    tokens: int


class Evidence(Frozen):
    """What was measured on the graph that ships."""

    size_bytes: int
    baseline_size_bytes: int
    quality: Quality | None = None
    latency: tuple[Latency, ...] = ()
    parity: dict[str, float] = {}
    samples: tuple[Sample, ...] = ()
    batch_invariance: BatchInvariance | None = Field(default=None, exclude_if=lambda found: found is None)
    machine: dict[str, Any] = {}


class Provenance(Frozen):
    """What it would take to make the same bundle again."""

    versions: dict[str, str] = {}
    seed: int = 0
    data_fingerprint: str = ""


class FileRecord(Frozen):
    """One file's checksum (hexadecimal sha256) and size in bytes."""

    sha256: str
    size: int


class Manifest(Frozen):
    """`manifest.json`. `version` is the content hash; `seal` guards the manifest itself against edits."""

    schema_version: Literal[1] = 1
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
    files: dict[FileName, FileRecord] = {}
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
