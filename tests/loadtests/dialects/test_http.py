import io

import pytest
from PIL import Image
from pydantic import ValidationError

from loadtests.dialects.http import HTTPRequest, calls


def test_a_body_is_sent_as_json_and_absent_when_there_is_none():
    keys = {"dialect": "http", "path": "/x", "method": "POST", "body": {"a": [1]}}
    call = calls(HTTPRequest.model_validate(keys))[0]
    assert (call.method, call.path, call.body) == ("POST", "/x", (b'{"a": [1]}',))
    assert calls(HTTPRequest(dialect="http"))[0].body is None


def request(**keys):
    return HTTPRequest.model_validate({"dialect": "http", "method": "POST"} | keys)


def test_files_are_sent_as_they_are_with_their_type(tmp_path):
    for name in ("b.png", "a.png", "c.txt"):
        (tmp_path / name).write_bytes(name.encode())
    found = calls(request(files=str(tmp_path / "*.png")))
    assert [(call.body, call.content_type) for call in found] == [
        ((b"a.png",), "image/png"),
        ((b"b.png",), "image/png"),
    ]


def test_images_are_drawn_from_the_seed():
    found = calls(request(images={"width": 8, "height": 4, "count": 3}))
    assert len({call.body for call in found}) == 3
    image = Image.open(io.BytesIO(found[0].body[0]))
    assert (image.size, image.format, found[0].content_type) == ((8, 4), "PNG", "image/png")
    again = calls(request(images={"width": 8, "height": 4, "count": 3}))
    assert [call.body for call in found] == [call.body for call in again]


def test_the_expected_status_may_be_any():
    assert 200 in calls(request())[0].expected
    assert 404 not in calls(request())[0].expected
    assert calls(request(expect=[404]))[0].expected == (404,)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"files": "/nowhere/*.png"}, "no file matches /nowhere"),
        ({"body": 1, "text": "a"}, "give one of body, text, files and images"),
        ({"method": "GET", "text": "a"}, "a GET has no body; say method: POST"),
        ({"path": "/a b"}, "String should match pattern"),
        ({"cancel": {"share": 0.6}, "slow": {"share": 0.6}}, "more than all requests"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused(keys, complaint):
    with pytest.raises(ValidationError, match=complaint):
        request(**keys)
