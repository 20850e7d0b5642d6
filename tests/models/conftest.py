"""A cache folder for the whole session, shared between xdist's workers, and a small real tokenizer."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors, trainers
from tokenizers.models import WordLevel

from runtime.manifest import TextProcessing

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if base.name.startswith("popen-") else base) / "modelpress-home"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(autouse=True)
def _environment(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPRESS_HOME", str(shared_home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def shared_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the development data beside the repository")
    monkeypatch.setenv("MODELPRESS_DATA", str(SHARED_DATA))
    return SHARED_DATA


@pytest.fixture
def make_tokenizer(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """A word-level tokenizer.json learnt from texts: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, then the words."""

    def make(texts: Iterable[str]) -> Path:
        tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        path = tmp_path / "tokenizer.json"
        tokenizer.save(str(path))
        return path

    return make


@pytest.fixture
def text_processing() -> TextProcessing:
    return TextProcessing(max_length=16, pooling="mean", normalize=True)
