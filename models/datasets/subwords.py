"""A small byte-pair tokenizer for encoder-decoders, learnt on the spot from a data set's own training texts.

Sources and answers share its vocabulary, so that a word is the same token on both sides (Vaswani et al.,
2017, section 5.1). A source ends in </s>; an answer begins after <pad> and ends in </s>, as T5 and Marian
have it. It is made once and cached. The trade-off: characters that the training texts lack are <unk>.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from models.storage import write_atomically
from runtime.manifest import GenerationProcessing

SPECIAL = ("<pad>", "</s>", "<unk>")
PAD_ID, END_ID, UNK_ID = range(len(SPECIAL))
PROCESSING = GenerationProcessing(eos_ids=(END_ID,), start_ids=(PAD_ID,))


def tokenizer_file(path: Path, texts: Iterable[str], vocabulary: int, lowercase: bool = False) -> Path:
    """tokenizer.json at `path`, learnt from `texts` where it is not there yet; `path` again."""
    if path.is_file():
        return path
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    words = Regex(r"▁?\w+|▁?[^\w▁]+|▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(split=False), pre_tokenizers.Split(words, "isolated")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", END_ID)]
    )
    write_atomically(path, tokenizer.to_str().encode())
    return path
