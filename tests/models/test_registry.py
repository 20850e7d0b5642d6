import subprocess
import sys

import pytest

from models import registry
from models.errors import UnknownModel


def test_every_member_says_what_it_must_reach() -> None:
    assert {"gpt-mini", "lenet5"} <= set(registry.names())
    for name in registry.names():
        spec = registry.get(name)
        assert spec.name == name
        assert spec.floor
        assert spec.recipe(full=False) == spec.training
        assert spec.recipe(full=True) == (spec.full or spec.training)


def test_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownModel, match=r"zoo:lenet: .* did you mean 'lenet5'\?"):
        registry.get("lenet")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="lenet5"):
        registry.register(registry.get("lenet5"))


def test_fingerprints_and_the_register_load_no_torch() -> None:
    script = """
import sys
from contextlib import suppress
from models import registry
from models.errors import DataError
from models.sources import source_fingerprint
for name in registry.names():
    with suppress(DataError):  # what not every installation has
        source_fingerprint(f"zoo:{name}", None, 0)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
