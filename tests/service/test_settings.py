"""Settings from the environment."""

import pytest

from service.errors import ServiceError
from service.settings import Settings


def test_nothing_set_means_the_defaults():
    assert Settings.from_environment({"MODELPRESS_SLOTS": "", "OTHER": "1"}) == Settings()


def test_every_field_has_a_variable():
    environment = {
        "MODELPRESS_BUNDLES": "lenet5-int8:1f, ./out/gpt ,",
        "MODELPRESS_THREADS": "2",
        "MODELPRESS_SLOTS": "4",
        "MODELPRESS_SPECULATE": "lookup, corpus.txt",
        "MODELPRESS_QUEUE": "0",
        "MODELPRESS_MAX_BODY_BYTES": "1024",
    }
    settings = Settings.from_environment(environment)
    assert settings.bundles == ("lenet5-int8:1f", "./out/gpt")
    assert settings.speculate == ("lookup", "corpus.txt")
    assert (settings.threads, settings.slots, settings.queue, settings.max_body_bytes) == (2, 4, 0, 1024)


@pytest.mark.parametrize("value", ["0", "many", "1.5"])
def test_a_wrong_value_names_its_variable(value):
    with pytest.raises(ServiceError, match=f"MODELPRESS_SLOTS={value}"):
        Settings.from_environment({"MODELPRESS_SLOTS": value})
