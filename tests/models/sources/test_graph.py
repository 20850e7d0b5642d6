from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.errors import DataError, SourceError
from models.sources import load_source, source_fingerprint


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """y = x @ w, with x float32 [batch, 2]."""
    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", 20)]
    )
    path = tmp_path / "My Model.onnx"
    onnx.save(model, str(path))
    return path


def test_a_graph_is_described_and_not_changed(graph: Path) -> None:
    source = load_source(f"onnx:{graph}")
    assert (source.name, source.task, source.graph) == ("my-model", "tensor", graph)
    assert (source.input_names, source.output_names) == (("x",), ("y",))
    assert source.module is None
    assert source.dataset is None


def test_a_single_input_takes_a_single_array_of_any_name(graph: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", pixels=np.zeros((5, 2), np.float32), labels=np.zeros(5, np.int64))
    source = load_source(f"onnx:{graph}", str(tmp_path / "data.npz"))
    assert source.dataset is not None
    assert list(source.dataset.train.inputs) == ["x"]


def test_a_graph_without_an_input_is_refused(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.ones(2, np.float32), "value")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    constant = helper.make_graph([helper.make_node("Constant", [], ["y"], value=value)], "g", [], [y])
    path = tmp_path / "constant.onnx"
    onnx.save(helper.make_model(constant, opset_imports=[helper.make_opsetid("", 20)]), str(path))
    with pytest.raises(SourceError, match="the graph takes no input"):
        load_source(f"onnx:{path}")


def test_an_input_that_the_data_lacks_is_named(graph: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", a=np.zeros((5, 2)), b=np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"takes 'x', and data 'data.npz' has a, b"):
        load_source(f"onnx:{graph}", str(tmp_path / "data.npz"))


def test_a_graph_of_a_fixed_number_of_rows_is_refused(graph: Path) -> None:
    """Exporters fix the batch of their example unless told otherwise."""
    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(graph))
    with pytest.raises(SourceError, match="'x' takes 1 rows at a time and no other number; export it with"):
        load_source(f"onnx:{graph}")


@pytest.mark.parametrize("content", [b"", b"GIF89a, not a graph", b"\x08\x0a\x12"])
def test_a_file_that_is_not_onnx_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"model\.onnx: not a valid ONNX graph") as caught:
        load_source(f"onnx:{path}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for use in (
        lambda: load_source(f"onnx:{tmp_path}/none.onnx"),
        lambda: source_fingerprint("onnx:none.onnx", None, 0),
    ):
        with pytest.raises(SourceError, match=r"none\.onnx: no such file"):
            use()


def test_the_fingerprint_follows_the_bytes(graph: Path) -> None:
    before = source_fingerprint(f"onnx:{graph}", None, 0)
    model = onnx.load(graph)
    model.doc_string = "another"
    onnx.save(model, str(graph))
    assert source_fingerprint(f"onnx:{graph}", None, 0) != before


def test_the_fingerprint_follows_weights_in_a_file_of_any_name(graph: Path) -> None:
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save_model(onnx.load(graph), str(graph), **options)
    before = source_fingerprint(f"onnx:{graph}", None, 0)
    (graph.parent / "weights.bin").write_bytes(np.zeros((2, 3), np.float32).tobytes())
    assert source_fingerprint(f"onnx:{graph}", None, 0) != before
