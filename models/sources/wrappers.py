"""transformers models as plain functions of tensors: named inputs in a fixed order, one tensor out.

That is what the exporter, the evaluation and the training loop ask of a module. They add no weights and no
computation. Causal language models need none: their forward already starts with `input_ids`.
"""

from torch import Tensor, nn


class EncoderModule(nn.Module):
    """An encoder: input_ids and attention_mask, int64 [batch, sequence], in and the tensor `output` out."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        result: Tensor = getattr(self.model(input_ids=input_ids, attention_mask=attention_mask), self.output)
        return result


class ImageModule(nn.Module):
    """A classifier: pixel_values, float32 [batch, channels, height, width], in and logits out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits
