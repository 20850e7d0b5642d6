"""Every error that this package raises; the tree's root is `runtime.errors.ModelpressError`.

ModelpressError
├── RecipeError     a recipe that cannot be read or cannot work: names the key, the file and the line
├── ExportError     a model that does not become an ONNX graph, or one whose graph computes something else
├── StepError       a step that this model or this data cannot take
├── GateError       a variant that is slower or worse than the recipe allows
├── OutputError     a place that a result cannot be written to
└── DemoError       a part of the demo that did not do its work
"""

from runtime.errors import ModelpressError


class RecipeError(ModelpressError):
    """The recipe cannot be read, or cannot work."""


class ExportError(ModelpressError):
    """The model does not export, or its graph does not compute what the model computes."""


class StepError(ModelpressError):
    """A compression step cannot be applied."""


class GateError(ModelpressError):
    """The gate refused a variant."""


class OutputError(ModelpressError):
    """A result cannot be written where it was asked for."""


class DemoError(ModelpressError):
    """A part of the demo did not do its work."""


def first_line(error: BaseException) -> str:
    """What an error of other code says, in one line; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
