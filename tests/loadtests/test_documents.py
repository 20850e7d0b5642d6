import json

import numpy as np
import pytest

from loadtests import documents
from loadtests.compare import Target, compare
from loadtests.errors import InvalidResult
from loadtests.result import build
from loadtests.sample import Sample
from loadtests.sweep import at_rates
from tests.loadtests.recorded import recorded


def measure(scenario, url="http://127.0.0.1:1"):
    planned = np.arange(20) / scenario.arrivals.rate
    return build(scenario, url, recorded([Sample(0, at, sent=at, ended=at + 0.1) for at in planned.tolist()]))


def test_whatever_was_written_is_read_again(scenario, tmp_path):
    target = Target("a", "http://127.0.0.1:1", scenario())
    written = [
        measure(scenario()),
        at_rates(scenario(), [40, 80, 160], measure),
        compare((target, target), 6, measure),
    ]
    path = tmp_path / "result.json"
    for document in written:
        path.write_text(document.model_dump_json(), encoding="utf-8")
        assert documents.read(path) == document
    with pytest.raises(InvalidResult, match="of several runs, and not of one"):
        documents.read_run(path)


def test_a_result_of_a_later_version_is_not_called_none(scenario, tmp_path):
    path, written = tmp_path / "result.json", measure(scenario()).model_dump(mode="json")
    path.write_text(json.dumps(written | {"schema_version": 2, "further": 1}), encoding="utf-8")
    with pytest.raises(InvalidResult, match="of schema_version 2, and this modelpress reads up to 1"):
        documents.read(path)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("lag_ms", [0.0], "lag_ms has 1 entries, and row 20"),
        ("error", ["timeout"] * 20, "error_details has no 'timeout'"),
        ("row", [1 << 63] * 20, "should be less than"),
        ("tokens", [-2] * 20, "greater than or equal to 0"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused(scenario, tmp_path, column, values, complaint):
    path, written = tmp_path / "result.json", measure(scenario()).model_dump(mode="json")
    samples = written["samples"] | {column: values}
    path.write_text(json.dumps(written | {"samples": samples}), encoding="utf-8")
    with pytest.raises(InvalidResult, match=complaint) as caught:
        documents.read(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_result_is_refused_in_one_line(tmp_path):
    path = tmp_path / "result.json"
    for text in ("{}", "[1]", '{"samples": {}}', '{"points": 3}', "not JSON", ""):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidResult, match="is no result of a load test") as caught:
            documents.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidResult, match="cannot read"):
        documents.read(tmp_path / "gone.json")
