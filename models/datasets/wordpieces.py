"""A small WordPiece tokenizer, learnt on the spot from a data set's own training texts.

For the encoders of the zoo: special tokens first, a text wrapped in [CLS] and [SEP], a pair of texts told
apart by its token types (Devlin et al., 2018, arXiv:1810.04805). It is made once and cached; the case of
letters is kept, because the texts are code.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import WordPiece

from models.storage import write_atomically

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(len(SPECIAL))
VOCABULARY = 4096


def tokenizer_file(path: Path, texts: Iterable[str], vocabulary: int = VOCABULARY) -> Path:
    """tokenizer.json at `path`, learnt from `texts` where it is not there yet; `path` again."""
    if path.is_file():
        return path
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS_ID), ("[SEP]", SEP_ID)],
    )
    write_atomically(path, tokenizer.to_str().encode())
    return path
