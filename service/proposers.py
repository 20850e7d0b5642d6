"""What speculates for a text model, from the operator's words: the text itself, a corpus, a smaller model.

Several are asked in turn, and the first that has an idea proposes. A corpus is a plain text file of the
operator's choice, counted when the model is loaded: never what is being served, or the time that an answer
takes would tell one tenant what another has asked. The trade-off: some seconds for each million tokens.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.model import TextModel, load_model
from runtime.speculation import FirstOf, NGramDraft, PromptLookup, Proposer
from service import store
from service.errors import ServiceError
from service.settings import Settings

logger = logging.getLogger("modelpress.service")

# What speculates without a file or a second model.
LOOKUP = "lookup"
# A draft is small and is called token by token: sharing its work takes longer than doing it.
DRAFT_THREADS = 1

# A proposer for one scheduler of a model.
Propose = Callable[[TextModel], Proposer | None]


def proposing(model: TextModel, settings: Settings) -> Propose:
    """How the proposers of a model's schedulers are made.

    Each word of `settings.speculate` is `lookup`, a text file, or a smaller text model's folder or tag.
    Raises BundleError for a draft that cannot be loaded, ServiceError for one that generates no text and for
    a file that is none. A draft with another tokenizer is left out, and the log says so.
    """
    found = [_find(word, model) for word in settings.speculate]
    makers = [each for each in found if each is not None]

    def propose(model: TextModel) -> Proposer | None:
        proposers = [make(model) for make in makers]
        return FirstOf(*proposers) if proposers else None

    return propose


def _find(word: str, model: TextModel) -> Callable[[TextModel], Proposer] | None:
    if word == LOOKUP:
        return lambda _: PromptLookup()
    if Path(word).is_file():
        table = _count(Path(word), model)
        return lambda _: table
    draft = _draft(model, word)
    return draft.draft_for if draft else None


def _count(path: Path, model: TextModel) -> NGramDraft:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{path}: cannot be read as text ({error}); name a file in UTF-8") from None
    tokens = model.tokenizer.encode(text, add_special_tokens=False).ids
    if not tokens:
        raise ServiceError(f"{path}: there is no text in it to count; name a file that has some")
    return NGramDraft(np.array(tokens, np.int64), model.graph.vocab_size)


def _draft(model: TextModel, reference: str) -> TextModel | None:
    bundle = store.find(reference)
    if bundle.manifest.version == model.manifest.version:
        return None
    draft = load_model(bundle, threads=DRAFT_THREADS)
    if not isinstance(draft, TextModel):
        raise ServiceError(f"{bundle.manifest.tag} generates no text and cannot draft; name one that does")
    try:
        draft.draft_for(model)
    except InputError as error:
        logger.warning("%s: %s", model.manifest.tag, error)
        return None
    return draft
