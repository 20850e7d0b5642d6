"""`POST /predict/{model}`: what a person has, in; the task's words, out."""

import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image

URL = "/predict/digits-tiny"


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


def labels(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [prediction["label"] for prediction in answer.json()["predictions"]]


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", ""])
def test_an_image_file_is_a_question(server, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert labels(server.http.post(URL, content=png(250), headers=headers)) == ["bright"]


def test_base64_images_are_a_batch(server):
    images = [base64.b64encode(png(value)).decode() for value in (250, 3)]
    assert labels(server.http.post(URL, json={"image": images})) == ["bright", "dark"]
    assert labels(server.http.post(URL, json={"image": images[1]})) == ["dark"]


def test_pixels_are_an_image(server):
    assert labels(server.http.post(URL, json={"pixels": np.full((8, 8), 200).tolist()})) == ["bright"]
    assert labels(server.http.post(URL, json={"pixels": np.full((4, 4, 3), 9).tolist()})) == ["dark"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "hello"}, 'wants {"image": ...} or {"pixels": ...}'),
        ({}, 'wants {"image": ...} or {"pixels": ...}'),
        ({"pixels": [[1]], "image": "x"}, "nothing else beside it"),
        ({"pixels": [[1, 2], [3]]}, "one length"),
        ({"pixels": [[256]]}, "from 0 to 255"),
        ({"pixels": [[0.5]]}, "rows of integers"),
        ({"pixels": []}, "rows of integers"),
        ({"image": "§"}, "not base64"),
        ({"image": ""}, "not a readable image"),
        ({"image": []}, "batch is empty"),
        ({"imag": "x"}, "did you mean 'image'"),
    ],
)
def test_a_wrong_question_is_a_400_that_says_what_is_wrong(server, body, message):
    answer = server.http.post(URL, json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_file_that_is_no_image_is_refused(server):
    answer = server.http.post(URL, content=b"\x00\x01")
    assert answer.status_code == 400
    assert "PNG" in answer.json()["error"]
