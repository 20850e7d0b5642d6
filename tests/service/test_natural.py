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


def test_base64_comes_in_lines_and_as_data_urls_too(server):
    lines = base64.encodebytes(png(250)).decode()
    url = "data:image/png;base64," + base64.b64encode(png(3)).decode()
    assert labels(server.http.post(URL, json={"image": [lines, url]})) == ["bright", "dark"]


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
        ({"image": "§"}, "not base64"),
        ({"image": ""}, "not a readable image"),
        ({"image": []}, "batch is empty"),
        ({"pixels": []}, "rows of integers"),
        (3, "should be an object"),
        ("hello", "not base64"),
        ({"imag": "x"}, "did you mean 'image'"),
    ],
)
def test_a_wrong_question_is_a_400_that_says_what_is_wrong(server, body, message):
    answer = server.http.post(URL, json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_form_with_files_is_a_batch(server):
    files = [("image", ("a.png", png(250), "image/png")), ("other", ("b.png", png(3), "image/png"))]
    assert labels(server.http.post(URL, files=files)) == ["bright", "dark"]
    assert labels(server.http.post(URL, files=files[:1])) == ["bright"]


@pytest.mark.parametrize(
    "form",
    [
        {"files": {"image": ("a.png", png(1))}, "data": {"text": "x"}},
        {"files": {"text": (None, "x")}},
        {"files": {"colour": (None, "x")}},
        {"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"--", "headers": {"Content-Type": "multipart/form-data"}},
    ],
)
def test_a_form_without_files_or_with_more_is_refused(server, form):
    assert server.http.post(URL, **form).status_code == 400


def test_a_plain_list_is_a_question(server):
    images = [base64.b64encode(png(value)).decode() for value in (250, 3)]
    assert labels(server.http.post(URL, json=images)) == ["bright", "dark"]
    assert labels(server.http.post(URL, json=images[0])) == ["bright"]
    assert labels(server.http.post(URL, json=np.full((8, 8), 200).tolist())) == ["bright"]


def test_more_pixels_than_are_decoded_at_once_are_refused_by_their_headers(server):
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    # One that is no image, for whose sake each of the others would be tried by itself.
    images = [base64.b64encode(each).decode() for each in (b"no image", *[file.getvalue()] * 17)]
    answer = server.http.post(URL, json={"image": images})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert "1,088,000,000 pixels together; send at most 1,024,000,000" in answer.json()["error"]


def test_a_bad_item_of_a_batch_costs_the_others_nothing(server):
    good = [base64.b64encode(png(value)).decode() for value in (250, 3)]
    items = [good[0], "§", base64.b64encode(b"no image").decode(), good[1]]
    answer = server.http.post(URL, json={"image": items})
    assert answer.status_code == 200
    first, second, third, fourth = answer.json()["predictions"]
    assert (first["label"], fourth["label"]) == ("bright", "dark")
    assert "not base64" in second["error"]
    assert "not a readable image" in third["error"]
    (only,) = server.http.post(URL, json={"image": ["§"]}).json()["predictions"]
    assert only.keys() == {"error"}


def test_a_file_that_is_no_image_is_refused(server):
    answer = server.http.post(URL, content=b"\x00\x01")
    assert answer.status_code == 400
    assert "PNG" in answer.json()["error"]


WRITER = "/predict/chatter-tiny"


def test_a_decoder_goes_on_with_a_text(server):
    body = {"model": "chatter-tiny", "prompt": "hello", "max_tokens": 6, "temperature": 0}
    wanted = server.http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    answer = server.http.post(WRITER, json={"text": "hello", "max_tokens": 6})
    assert answer.json()["predictions"] == [{"text": wanted, "finish_reason": "length"}]
    plain = server.http.post(WRITER, json="hello").json()["predictions"][0]["text"]
    assert len(plain) == 64
    assert plain.startswith(wanted)
    form = server.http.post(WRITER, files=[("text", (None, "hello"))])
    assert form.json()["predictions"][0]["text"] == plain
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    text = server.http.post(WRITER, content="hello", headers=headers)
    assert text.json()["predictions"][0]["text"] == plain
    assert server.http.post(WRITER, content=b"\xff", headers=headers).status_code == 400


def test_bentomls_endpoint_goes_on_with_texts(server):
    body = {"model": "chatter-tiny", "text": ["hello", ""], "max_tokens": 3}
    good, bad = server.http.post("/predict", json=body).json()
    assert len(good["text"]) == 3
    assert bad == {"error": "the text is empty; send at least one word"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"pixels": [[1]]}, 'wants {"text": ...}'),
        ({"text": []}, "batch is empty"),
        ({"text": "", "max_tokens": 3}, "text is empty"),
        ({"text": "a", "max_tokens": 0}, "at least 1"),
        ({"max_tokens": 3}, 'wants {"text": ...}'),
        ({"text": ["a"] * 100}, "send at most"),
    ],
)
def test_a_wrong_text_is_a_400_that_says_what_is_wrong(server, body, message):
    answer = server.http.post(WRITER, json=body)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


def test_only_what_writes_takes_max_tokens(server):
    answer = server.http.post(URL, json={"pixels": [[1]], "max_tokens": 3})
    assert answer.status_code == 400
    assert "nothing else beside it" in answer.json()["error"]
