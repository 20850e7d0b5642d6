import torch

from models.zoo.elmo import Elmo, elmo

IDS = torch.tensor([[3, 7, 1, 5, 2]])
MASK = torch.ones_like(IDS)


def network() -> Elmo:
    torch.manual_seed(0)
    built = elmo(vocabulary=20, width=8).eval()
    assert isinstance(built, Elmo)
    return built


def test_padding_changes_no_answer() -> None:
    padded = [torch.nn.functional.pad(rows, (0, 6)) for rows in (IDS, MASK)]
    with torch.inference_mode():
        assert torch.allclose(network()(IDS, MASK), network()(*padded)[:, :5], atol=1e-6)


def test_a_direction_has_not_seen_what_it_predicts() -> None:
    changed = IDS.clone()
    changed[0, 2] = 11
    with torch.inference_mode():
        before, after = (network().layers(ids, MASK)[-1] for ids in (IDS, changed))
    ahead, behind = ((one != other).any(-1)[0].tolist() for one, other in zip(before, after, strict=True))
    assert ahead == [False, False, True, True, True]
    assert behind == [True, True, True, False, False]
