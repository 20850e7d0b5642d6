"""What becomes of a person's input before the graph, as settings that `runtime` acts on."""

from typing import Annotated, Literal

from pydantic import Field

from runtime.manifest.values import FileName, Frozen


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

    Longer texts are truncated to `max_length` tokens (the special tokens included): to the first, or to the
    last. Of a `pair`, a question and its context, only the context is.
    """

    kind: Literal["text"] = "text"
    tokenizer: FileName = "tokenizer.json"
    max_length: int
    pad_id: int = 0
    token_type_ids: bool = False
    pooling: Literal["none", "mean", "cls"] = "none"
    normalize: bool = False
    pair: bool = Field(default=False, exclude_if=lambda pair: not pair)
    keep: Literal["first", "last"] = Field(default="first", exclude_if=lambda keep: keep == "first")


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
