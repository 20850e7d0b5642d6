"""Which recipes a stranger may run."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest
from service.jobs.recipe import MAX_BYTES, check_recipe


@pytest.mark.parametrize(
    "recipe",
    [
        "model: zoo:lenet5\nsteps:\n  - {method: quantize, scheme: int8-static}\ngate: {max_drop: 0.01}",
        "model: hf:reviewer\ndata: reviews/train.tsv",
        "model: onnx:graphs/tiny.onnx",
        "model: zoo:gpt-mini\nsteps:\n  - {method: quantize, layers: {'model.layers.*.mlp': 8}}",
    ],
)
def test_what_stays_in_its_folder_is_let_through(recipe):
    check_recipe(recipe)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("model: py:os.path:join", "run code"),
        ("model: zoo:a\nsteps: [{method: distill, student: {source: 'py:x:y'}}]", "run code"),
        ("model: hf:/etc", "leaves the folder"),
        ("model: onnx:../secret.onnx", "leaves the folder"),
        ("model: zoo:a\ndata: ~/secret.csv", "leaves the folder"),
        ("model: zoo:a\ndata: a/../../b.csv", "leaves the folder"),
        ("model: zoo:a\n? /etc/passwd\n: 1", "leaves the folder"),
        ("model: &a [x]\ndata: *a", "aliases"),
        ("model: [", "not valid YAML"),
        ("model: !!python/object/apply:os.system [ls]", "not valid YAML"),
        # "py:os.path:join" and "/etc/passwd" in base64, which become texts when the recipe is read.
        ("model: !!binary cHk6b3MucGF0aDpqb2lu", "a value is bytes"),
        ("model: zoo:a\ndata: [!!binary L2V0Yy9wYXNzd2Q=]", "a value is bytes"),
        ("model: zoo:a\n? !!binary L2V0Yy9wYXNzd2Q=\n: 1", "a value is bytes"),
        ("model: zoo:a\nname: 2026-11-27", "a value is date"),
        ("[" * 16_000, "nested over"),
        ("just a text", "a mapping"),
        ("steps: []", "'model'"),
        ("model: zoo:a  #" + "x" * MAX_BYTES, "a page of YAML"),
    ],
)
def test_the_rest_is_refused(recipe, message):
    with pytest.raises(InvalidRequest, match=message):
        check_recipe(recipe)


@given(st.text())
def test_whatever_comes_is_taken_or_refused(text):
    with suppress(InvalidRequest):
        check_recipe("model: " + text)
