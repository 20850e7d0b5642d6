import pytest
import torch
import torch.nn.functional as F

from models.zoo.simcse import DROPPED, _without_some, contrastive_loss, sentence_encoder


@pytest.fixture
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return sentence_encoder(vocabulary=40, width=16, heads=2).eval()


def batch(rows: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 40, (rows, 8), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "targets": torch.zeros(rows)}


def test_padding_changes_no_token(module: torch.nn.Module) -> None:
    torch.nn.init.normal_(module.get_parameter("output.weight"))
    whole = batch(2)
    alone = module(whole["input_ids"][:1, :5], whole["attention_mask"][:1, :5])
    torch.testing.assert_close(module(whole["input_ids"], whole["attention_mask"])[:1, :5], alone)


def test_a_token_counts_by_its_importance(module: torch.nn.Module) -> None:
    ids = torch.tensor([[3, 4]])
    before = module(ids, torch.ones_like(ids))
    with torch.no_grad():
        module.get_parameter("importance.weight")[4] = 1.0
    after = module(ids, torch.ones_like(ids))
    torch.testing.assert_close(after[0, 0], before[0, 0])
    torch.testing.assert_close(after[0, 1], before[0, 1] * torch.e)


def test_a_reading_leaves_out_its_share_but_never_the_first_token() -> None:
    torch.manual_seed(0)
    mask = torch.ones(200, 50, dtype=torch.int64)
    mask[:, 40:] = 0
    kept = _without_some(mask)
    assert kept[:, 0].all()
    assert not kept[:, 40:].any()
    assert float(kept[:, 1:40].float().mean()) == pytest.approx(1 - DROPPED, abs=0.05)


def test_the_loss_is_less_where_sentences_differ(module: torch.nn.Module) -> None:
    torch.manual_seed(0)
    different = batch(16)
    alike = {**different, "input_ids": different["input_ids"][:1].expand(16, -1)}
    chance = F.cross_entropy(torch.zeros(16, 16), torch.arange(16))
    assert contrastive_loss(module, different) < 0.8 * chance < contrastive_loss(module, alike)
