import torch

from models.zoo.spans import SpanReader, ends


class Fixed(torch.nn.Module):
    """Says the same of every token of any text."""

    def forward(self, input_ids: torch.Tensor, **more: torch.Tensor) -> object:
        self.start_logits, self.end_logits = torch.zeros(2, *input_ids.shape)
        return self


def test_the_loss_is_of_the_first_token_and_of_the_last() -> None:
    tokens = torch.ones(2, 5, dtype=torch.int64)
    inputs = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), tokens)
    batch = {**inputs, "targets": torch.tensor([[1, 3], [-100, -100]])}
    loss = ends(SpanReader(Fixed()), batch)
    assert torch.allclose(loss, torch.tensor(5.0).log())
