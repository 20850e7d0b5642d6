import pytest
import torch

from models.zoo.recurrent import CELLS, recurrent


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_no_answer(cell: str) -> None:
    network = recurrent(cell, vocabulary=20, embedding=8, hidden=8).eval()
    ids = torch.tensor([[3, 7, 1, 5]])
    mask = torch.ones_like(ids)
    padded = [torch.nn.functional.pad(rows, (0, 6)) for rows in (ids, mask)]
    with torch.inference_mode():
        assert torch.allclose(network(ids, mask), network(*padded), atol=1e-6)


def test_both_directions_are_torchs_bidirectional_layer() -> None:
    torch.manual_seed(0)
    network = recurrent("gru", vocabulary=20, embedding=8, hidden=4).eval()
    both = torch.nn.GRU(8, 4, batch_first=True, bidirectional=True)
    names = dict(network.named_parameters())
    for name, parameter in both.named_parameters():
        part = "backwards" if name.endswith("_reverse") else "forwards"
        parameter.data = names[f"{part}.{name.removesuffix('_reverse')}"].data
    ids = torch.tensor([[3, 7, 1, 5]])
    with torch.inference_mode():
        pooled = both(network.embedding(ids))[0].amax(1)  # type: ignore[operator]
        assert torch.allclose(network(ids, torch.ones_like(ids)), network.head(pooled), atol=1e-6)  # type: ignore[operator]


def test_cells_that_answer_in_halves_are_pooled_among_halves() -> None:
    network = recurrent("rnn", vocabulary=20, embedding=8, hidden=8).eval()
    ids = torch.tensor([[3, 7, 1, 5], [2, 2, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.inference_mode():
        wanted = network(ids, mask)
        with torch.autocast("cpu", torch.float16):
            assert torch.allclose(network(ids, mask).float(), wanted, atol=0.01)
