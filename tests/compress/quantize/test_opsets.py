from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from compress.quantize.opsets import opsets_of


@pytest.mark.parametrize("versions", [{"": 17}, {"": 9, "com.microsoft": 1, "ai.onnx.ml": 300}, {}])
def test_opsets_are_those_that_onnx_reads(tmp_path: Path, versions: dict[str, int]) -> None:
    """Also of a graph of more than a byte's length, beside fields that are numbers and such as come later."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [300], [0.5] * 300)
    value = helper.make_tensor_value_info("w", TensorProto.FLOAT, [300])
    graph = helper.make_graph([], "graph", [], [value], [weight])
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    model = helper.make_model(graph, opset_imports=imports, model_version=1 << 40, producer_name="x" * 200)
    helper.set_model_props(model, {"key": "value"})
    onnx.save(model, tmp_path / "model.onnx")
    read = {each.domain: each.version for each in onnx.load(tmp_path / "model.onnx").opset_import}
    assert opsets_of(tmp_path / "model.onnx") == read
    assert versions.items() <= read.items()
