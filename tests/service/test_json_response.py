"""JSON out."""

import json

import numpy as np

from service.json_response import JsonResponse, dumps


def test_what_json_cannot_say_is_null():
    rows = np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)
    assert json.loads(dumps({"rows": rows, "value": float("nan")})) == {
        "rows": [[1.5, None], [None, None]],
        "value": None,
    }


def test_arrays_are_written_with_their_own_precision():
    assert dumps(np.array([0.1], np.float32)) == b"[0.1]"
    assert dumps(np.array([2**62, -1])) == b"[4611686018427387904,-1]"
    assert dumps(np.array([True, False])) == b"[true,false]"


def test_a_response_says_that_it_is_json():
    response = JsonResponse({"a": "é"}, 201)
    assert (response.status_code, response.headers["content-type"]) == (201, "application/json")
    assert json.loads(response.body) == {"a": "é"}
