import pytest

from models.errors import SourceError
from models.sources import load_source, source_fingerprint


@pytest.mark.parametrize("reference", ["lenet5", "zoo:", "git:model", ""])
def test_a_reference_of_no_kind_lists_the_kinds(reference: str) -> None:
    for use in (lambda: load_source(reference), lambda: source_fingerprint(reference, None, 0)):
        with pytest.raises(
            SourceError, match=r"write zoo:NAME, hf:FOLDER_OR_ID, py:.*, onnx:FILE|or onnx:FILE"
        ):
            use()
