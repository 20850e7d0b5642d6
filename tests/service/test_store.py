"""Bundles found in folders and in BentoML's model store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import bentoml
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from runtime.bundle import Bundle
from runtime.errors import BundleDamaged, BundleNotFound
from service import store


@pytest.fixture(autouse=True)
def model_store(tmp_path: Path, bundles: Path) -> Iterator[None]:
    """An own model store, with two versions of one bundle and a model that is none of ours."""
    BentoMLContainer.model_store.set(ModelStore(tmp_path))
    digits = Bundle.open(bundles / "digits")
    for version in ("older", digits.manifest.version):
        with bentoml.models.create(f"digits-tiny:{version}", module=store.MODULE) as model:
            shutil.copytree(digits.path, model.path, dirs_exist_ok=True)
    with bentoml.models.create("stranger", module="sklearn"):
        pass
    yield
    BentoMLContainer.model_store.reset()


def test_a_tag_finds_the_newest_version(bundles):
    found = store.find("digits-tiny")
    assert found.manifest == Bundle.open(bundles / "digits").manifest
    assert found.path.name == found.manifest.version


def test_a_version_can_be_named():
    assert store.find("digits-tiny:older").path.name == "older"


def test_a_folder_is_found_as_it_is(bundles):
    assert store.find(str(bundles / "chatter")).manifest.tag == "chatter-tiny"


def test_without_references_everything_of_ours_is_found_once(bundles):
    (found,) = store.find_all([])
    assert found.path.name == Bundle.open(bundles / "digits").manifest.version


@pytest.mark.parametrize("tag", ["digit-tiny", "digits-tiny:newer", "Digits Tiny"])
def test_a_tag_that_is_not_there_names_the_nearest(tag):
    with pytest.raises(BundleNotFound, match="digits-tiny"):
        store.find(tag)


@pytest.mark.parametrize("references", [[], ["digit-tiny"]])
def test_half_of_a_model_in_the_store_is_said_in_words(tmp_path, references):
    (tmp_path / "other" / "version").mkdir(parents=True)
    with pytest.raises(BundleDamaged, match=r"cannot be listed: .*; `modelpress list` says what to remove"):
        store.find_all(references)


def test_a_stored_bundle_is_checked():
    (store.find("digits-tiny").path / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleDamaged):
        store.find("digits-tiny")
