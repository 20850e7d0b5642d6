"""The pretexts of ELECTRA, XLNet and DistilBERT, on tiny networks."""

from dataclasses import replace

import torch

from models.datasets.wordpieces import CLS_ID, SEP_ID
from models.registry import ModelSpec, get
from models.zoo.distilbert import cut
from models.zoo.member import Member, build
from models.zoo.replaced_tokens import Electra
from models.zoo.xlnet import factorization

IDS = torch.tensor([[CLS_ID, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, SEP_ID]])
MASK = torch.ones_like(IDS)


def tiny(name: str, **more: int) -> ModelSpec:
    spec = get(name)
    return replace(spec, config={**spec.config, **spec.tiny, **more})


def test_an_order_hides_what_comes_later_and_predicts_its_end():
    torch.manual_seed(0)
    hidden_from, targets, real = factorization(IDS, MASK)
    assert real.all()
    assert targets.shape == (1, 2)
    # Nothing hides a special token, every word is hidden from it, and a later word from an earlier one.
    assert not hidden_from[0, :, [0, -1]].any()
    assert hidden_from[0, 0, 1:-1].all()
    words = hidden_from[0, 1:-1, 1:-1]
    assert torch.equal(words | words.T, torch.ones(10, 10, dtype=torch.bool))
    last = int(targets[0, 0])
    assert hidden_from[0, last].sum() == 1


def test_padding_is_neither_seen_nor_predicted():
    mask = MASK.clone()
    mask[0, 3:] = 0
    _, targets, real = factorization(IDS, mask)
    assert set(targets[0, real[0]].tolist()) <= {1, 2}


def test_electras_generator_shares_the_embeddings_it_is_dropped_from():
    module = Electra(build(tiny("electra")))
    assert module.generator.electra.embeddings is module.discriminator.embeddings
    tied = module.generator.get_output_embeddings().weight
    assert tied is module.discriminator.embeddings.word_embeddings.weight
    module(IDS, MASK).backward()
    assert all(parameter.grad is not None for parameter in module.discriminator.parameters())


def test_a_student_begins_as_every_other_layer_of_its_teacher():
    teacher = build(tiny("bert", num_hidden_layers=4))
    student = build(tiny("distilbert", n_layers=2))
    cut(student.model, teacher.model)
    for layer, place in ((0, 0), (1, 2)):
        ours = student.model.distilbert.transformer.layer[layer].ffn.lin1.weight
        assert torch.equal(ours, teacher.model.bert.encoder.layer[place].intermediate.dense.weight)


def test_a_students_key_covers_its_teachers():
    student = Member(get("distilbert"))
    assert student.teacher is not None
    assert student.fingerprint != Member(get("distilbert"), seed=1).fingerprint
    alone = replace(student.spec.pretraining, teacher=None)
    other = replace(student.spec.pretraining, teacher="roberta")
    keys = {Member(replace(student.spec, pretraining=each)).fingerprint for each in (alone, other)}
    assert student.fingerprint not in keys
    assert len(keys) == 2
