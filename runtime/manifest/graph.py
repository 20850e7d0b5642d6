"""Which graphs a bundle holds, and what has to be known to run them together."""

from typing import Annotated, Literal

from pydantic import Field

from runtime.manifest.values import FileName, Frozen


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
    files: dict[str, FileName] = Field(default_factory=dict)


class TablePart(Frozen):
    """A row of bytes for each token, one after the other: the first is at `offset` of the graph's file."""

    offset: int = Field(ge=0)
    row_bytes: int = Field(gt=0)


class EmbeddingTable(Frozen):
    """Where a graph that is given `inputs_embeds` instead of tokens has their rows, in its own file.

    Of 16 and 32 bits, `values` are floats [tokens, width]. Of 4 and 8 they are unsigned integers in groups of
    `group_size`, with a float32 scale and a zero point each (default: the middle), packed as the operators
    GatherBlockQuantized and MatMulNBits have them; a row may be padded to whole groups.
    """

    tokens: int = Field(gt=0)
    width: int = Field(gt=0)
    bits: Literal[4, 8, 16, 32]
    values: TablePart
    group_size: int | None = Field(default=None, gt=0)
    scales: TablePart | None = None
    zero_points: TablePart | None = None


class PhaseGraph(Frozen):
    """Another graph of the same decoder, over the same cache, for calls of `from_tokens` tokens and more."""

    from_tokens: int = Field(ge=2)
    file: FileName
    embedding: EmbeddingTable | None = Field(default=None, exclude_if=lambda table: table is None)


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
    `encoder` it attends to a source, too. With an `embedding` a graph is given rows instead of tokens, and so
    is the one that takes adapters, the rows of `file`.
    """

    kind: Literal["decoder"] = "decoder"
    file: FileName = "decoder.onnx"
    layers: tuple[KVLayer, ...]
    kv_dtype: Literal["float32", "float16", "int8"] = "float32"
    vocab_size: int
    context_length: int
    embedding: EmbeddingTable | None = Field(default=None, exclude_if=lambda table: table is None)
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
