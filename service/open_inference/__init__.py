"""The Open Inference Protocol, version 2: health, metadata, `infer`, the model repository.

Spec: https://github.com/kserve/open-inference-protocol, and Triton's extensions for binary tensors and for
the model repository. Unknown keys are ignored, as the protocol wants it.
"""

from starlette.routing import Route

from service.open_inference.infer import infer
from service.open_inference.models import live, model, model_ready, ready, server
from service.open_inference.repository import index, load, unload

__all__ = ["ready", "routes", "server"]

# The first match wins, and `infer` is what nearly every request asks for.
routes = [
    Route("/models/{name}/infer", infer, methods=["POST"]),
    Route("/", server),
    Route("/health/live", live),
    Route("/health/ready", ready),
    Route("/models/{name}", model),
    Route("/models/{name}/ready", model_ready),
    Route("/models/{name}/versions/{version}", model),
    Route("/models/{name}/versions/{version}/ready", model_ready),
    Route("/models/{name}/versions/{version}/infer", infer, methods=["POST"]),
    Route("/repository/index", index, methods=["POST"]),
    Route("/repository/models/{name}/load", load, methods=["POST"]),
    Route("/repository/models/{name}/unload", unload, methods=["POST"]),
]
