"""DistilBERT (Sanh et al., arXiv:1910.01108): half of a trained BERT's layers, taught by the whole of it.

The student begins as every other layer of the teacher. It learns from the teacher's soft answers and from the
direction of its last hidden states (section 2). The trade-off: the paper distils the masked language model
and this the classifier, since 5,400 snippets teach a language model little (docs/log.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from models.datasets import Dataset
from models.sources.wrappers import EncoderModule
from models.training import Batch
from models.zoo.pretraining import Pretext

TEMPERATURE = 2.0
# The authors' weights for soft answers and for hidden states.
SOFT, COSINE = 5.0, 1.0
# Of a layer, transformers' name in the student and in the teacher.
_LAYER = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}


def classifier(classes: int = 10, **config: Any) -> nn.Module:
    """A classifier with fresh weights; `config` is DistilBertConfig's."""
    settings = DistilBertConfig(num_labels=classes, **config)
    return EncoderModule(DistilBertForSequenceClassification(settings), "logits")


def taught(student: nn.Module, dataset: Dataset, seed: int, teacher: nn.Module) -> Pretext:
    """Distillation of `teacher`, a trained BERT classifier, into `student`, which is first cut from it."""
    pupil: Any = student
    master: Any = teacher.eval().requires_grad_(False)
    cut(pupil.model, master.model)

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            wanted = master.to(tokens["input_ids"].device).model(**tokens, output_hidden_states=True)
        given = pupil.model(**tokens, output_hidden_states=True)
        kept = tokens["attention_mask"].bool()
        hidden = F.cosine_similarity(given.hidden_states[-1][kept], wanted.hidden_states[-1][kept], dim=-1)
        return SOFT * soft_loss(given.logits, wanted.logits) + COSINE * (1 - hidden).mean()

    return student, loss


def soft_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """Divergence of softened answers [batch, classes], times the squared temperature (arXiv:1503.02531)."""
    divergence = F.kl_div(
        F.log_softmax(given.float() / TEMPERATURE, -1),
        F.log_softmax(wanted.float() / TEMPERATURE, -1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * TEMPERATURE**2


def cut(student: Any, teacher: Any) -> None:
    """Give `student` the teacher's embeddings and head, and of its layers as many as it has, evenly spread.

    The teacher's segment vector is added to each position's: the student knows no segments.
    """
    ours, theirs = student.distilbert.embeddings, teacher.bert.embeddings
    ours.word_embeddings.load_state_dict(theirs.word_embeddings.state_dict())
    ours.LayerNorm.load_state_dict(theirs.LayerNorm.state_dict())
    with torch.no_grad():
        ours.position_embeddings.weight.copy_(
            theirs.position_embeddings.weight + theirs.token_type_embeddings.weight[0]
        )
    layers, source = student.distilbert.transformer.layer, teacher.bert.encoder.layer
    for layer, taken in zip(layers, source[:: len(source) // len(layers)], strict=True):
        for name, original in _LAYER.items():
            layer.get_submodule(name).load_state_dict(taken.get_submodule(original).state_dict())
    student.pre_classifier.load_state_dict(teacher.bert.pooler.dense.state_dict())
    student.classifier.load_state_dict(teacher.classifier.state_dict())
