"""LitServe over the same graph: litserve_app.py MODEL.onnx PORT."""

import sys

import litserve
import numpy as np
import onnxruntime as ort


class Digits(litserve.LitAPI):
    """Tensors in, tensors out, batched by LitServe."""

    def setup(self, device):
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(sys.argv[1], options)

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, pixels):
        return self.session.run(None, {"pixels": pixels})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, logits):
        return {"outputs": [{"name": "logits", "data": logits.tolist()}]}


if __name__ == "__main__":
    api = Digits(max_batch_size=32, batch_timeout=0.001, api_path="/infer")
    litserve.LitServer(api, accelerator="cpu").run(
        port=int(sys.argv[2]), host="127.0.0.1", log_level="warning", generate_client_file=False
    )
