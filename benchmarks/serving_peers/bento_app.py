"""Native BentoML over the same graph: `bentoml serve bento_app:Digits`, with PEER_MODEL naming the file."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Digits:
    """Tensors in, tensors out, batched by BentoML."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["PEER_MODEL"], options)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def infer(self, data: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"pixels": data.astype(np.float32)})[0]
