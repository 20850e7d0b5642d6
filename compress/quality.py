"""What a torch module is worth in the middle of a recipe, before it is exported: for a step's figures.

The gate's verdict is `measure`'s, on the graph that ships.
"""

from typing import TYPE_CHECKING

from compress.errors import StepError

if TYPE_CHECKING:
    from torch import nn

    from models.sources.source import SourceModel

# As many as the gate's default, drawn alike: the unchanged model's figure is then the baseline's.
EXAMPLES = 1000


def module_metric(source: "SourceModel", module: "nn.Module", seed: int, examples: int = EXAMPLES) -> float:
    """The metric of `source`'s task for `module`, on at most `examples` of the validation split."""
    from compress.examples import EVALUATION_BATCH, choose
    from models.evaluation import evaluate, torch_predict

    assert source.dataset is not None
    split = choose(source.dataset.validation, examples, seed)
    tokenizer = source.files.get("tokenizer.json")
    predict = torch_predict(module, source.input_names, source.output_names, source.processing, tokenizer)
    return evaluate(
        predict, split, metric_name("this step", source), EVALUATION_BATCH, source.processing
    ).value()


def metric_name(method: str, source: "SourceModel") -> str:
    """The metric that `source`'s data is judged by. Raises StepError, on behalf of `method`, without one."""
    from models.evaluation import metric_for

    metric = metric_for(source.dataset) if source.dataset else None
    if metric is None:
        raise StepError(
            f"{source.reference}: {method} learns classes or tokens, and its data has none to learn"
        )
    return metric


def parameter_count(module: "nn.Module") -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
