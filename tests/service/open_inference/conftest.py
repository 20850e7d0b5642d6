"""The unmodified `tritonclient` against the one server."""

from collections.abc import Iterator

import pytest
from tritonclient import http


@pytest.fixture
def client(server) -> Iterator[http.InferenceServerClient]:
    with http.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client
