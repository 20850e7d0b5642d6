import torch

from models.allocation import kept_pages


def test_tensors_outlive_the_context() -> None:
    with kept_pages():
        kept = torch.arange(2**20)
        del_me = torch.zeros(2**22)
        del del_me
    assert int(kept.sum()) == 2**19 * (2**20 - 1)
