"""int8 of the real all-MiniLM-L6-v2, in a folder that MODELPRESS_MINILM names (as transformers saves it)."""

import json
import os
from pathlib import Path

import pytest

from compress.pipeline import run
from compress.recipe import parse_recipe

FOLDER = "MODELPRESS_MINILM"


@pytest.mark.slow
def test_int8_keeps_the_correlation_at_a_quarter_of_the_size() -> None:
    if FOLDER not in os.environ:
        pytest.skip(f"{FOLDER} does not name the folder of sentence-transformers/all-MiniLM-L6-v2")
    recipe = {
        "model": f"hf:{Path(os.environ[FOLDER]).resolve()}",
        "data": "sts",
        "steps": [{"method": "quantize", "scheme": "int8-dynamic"}],
    }
    evidence = run(parse_recipe(json.dumps(recipe))).evidence
    assert evidence.quality is not None
    assert evidence.quality.metric == "spearman"
    assert evidence.quality.baseline > 0.75
    assert evidence.quality.drop <= 0.005
    assert evidence.baseline_size_bytes / evidence.size_bytes > 3.9
