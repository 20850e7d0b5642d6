"""Every error that this package raises, and the root of the project's tree.

    ModelpressError             a user's mistake or a broken artefact: one line, exit code 2
    ├── BundleError
    │   ├── BundleNotFound      no bundle at that place
    │   └── BundleDamaged       a file is missing, truncated or changed
    ├── GraphError              not an ONNX graph, or one that onnxruntime refuses
    ├── AdapterError            not an adapter, not one of this model, or a name that is not loaded
    ├── CapacityError           every KV slot is taken
    └── InputError              a request that the model cannot answer (HTTP 400)
        ├── PromptTooLong       more tokens than the context holds
        └── BatchTooLarge       more at once than is read, whichever items are left out

A message says what was wrong, where, and what to do about it.
"""


class ModelpressError(Exception):
    """Root of the tree. The command line prints its message and exits with code 2."""


class BundleError(ModelpressError):
    """A bundle cannot be used."""


class BundleNotFound(BundleError):
    """There is no bundle at the given place."""


class BundleDamaged(BundleError):
    """A bundle's content is not what its manifest says."""


class GraphError(ModelpressError):
    """A file is not an ONNX graph, or onnxruntime refuses it."""


class AdapterError(ModelpressError):
    """An adapter cannot be loaded, unloaded or found."""


class CapacityError(ModelpressError):
    """No free slot in the KV buffers."""


class InputError(ModelpressError):
    """A request that this model cannot answer: wrong name, shape, dtype or value."""


class PromptTooLong(InputError):
    """The prompt leaves no room in the context."""


class BatchTooLarge(InputError):
    """A request's items together are more than is read at once; no single one is at fault."""
