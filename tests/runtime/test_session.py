from pathlib import Path
from typing import Any

import pytest

from runtime.errors import GraphError
from runtime.session import available_cores, open_session, tensor_specs


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no such file"):
        open_session(tmp_path / "nothing.onnx")


def test_cores_are_at_least_one() -> None:
    assert available_cores() >= 1


def test_the_signature_is_read_from_the_graph(decoder_graph: Any) -> None:
    path, _ = decoder_graph
    specs = {spec.name: spec for spec in tensor_specs(open_session(path, threads=1).get_inputs())}
    assert specs["input_ids"].dtype == "int64"
    assert specs["past_key_0"].shape[1::2] == (2, 8)
