from loadtests.dialects.http import HTTPRequest, calls


def test_a_body_is_sent_as_json_and_absent_when_there_is_none():
    keys = {"dialect": "http", "path": "/x", "method": "POST", "body": {"a": [1]}}
    call = calls(HTTPRequest.model_validate(keys))[0]
    assert (call.method, call.path, call.body) == ("POST", "/x", (b'{"a": [1]}',))
    assert calls(HTTPRequest(dialect="http"))[0].body is None
