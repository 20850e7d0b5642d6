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


@pytest.mark.parametrize("spinning", [True, False])
def test_a_thread_never_waits_awake_without_end(decoder_graph: Any, spinning: bool) -> None:
    options = open_session(decoder_graph[0], threads=2, spinning=spinning).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spinning))
    assert 0 < int(options.get_session_config_entry("session.intra_op.spin_duration_us")) < 1000
