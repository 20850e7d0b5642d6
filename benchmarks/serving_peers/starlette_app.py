"""The yardstick: a bare Starlette handler that does the work of `/v2/models/NAME/infer`, and nothing else.

python starlette_app.py MODEL.onnx PORT
"""

import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

options = ort.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(sys.argv[1], options)


async def infer(request: Request) -> JSONResponse:
    """Tensors in, tensors out."""
    tensor = (await request.json())["inputs"][0]
    pixels = np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])
    (logits,) = session.run(None, {tensor["name"]: pixels})
    output = {"name": "logits", "shape": logits.shape, "datatype": "FP32", "data": logits.ravel().tolist()}
    return JSONResponse({"model_name": "digits", "outputs": [output]})


app = Starlette(routes=[Route("/infer", infer, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
