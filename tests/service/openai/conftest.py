"""The unmodified `openai` client against the one server, and the text model that it asks, in process."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from runtime.bundle import Bundle
from runtime.model import TextModel, load_model


@pytest.fixture(scope="session")
def client(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def model(bundles: Path) -> TextModel:
    return load_model(Bundle.open(bundles / "chatter"))
