"""Prune, train, prune more: rounds that end at the asked ratio, from trained weights or by rewinding.

With `rewind`, after each round the surviving weights go back to what they were early in training, and the
last round's network, trained alone, is the lottery ticket (Frankle and Carbin, The lottery ticket hypothesis,
2019, arXiv:1803.03635; rewinding to an early step instead of the start: Frankle et al., 2020,
arXiv:1912.05671). Where a layer cannot be initialised anew, the search begins at the weights that the run
was given, as for pretrained models (Chen et al., 2020, arXiv:2007.12223). The ticket matches when it is
within `MATCHES` of the dense network that was trained as long from the same weights. The trade-off: every
round costs a whole training.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compress.finetune import finetune
from compress.prune.config import Iterative
from compress.prune.hold import held, unchanged
from compress.prune.layers import Layers, refuse_empty, weight_of
from compress.prune.masks import magnitude_masks, round_ratio
from compress.quality import metric_name, module_metric
from compress.step import Figures
from models.evaluation import is_score
from models.sources.source import SourceModel

# Half a point of a score in [0, 1], or half a percent of a perplexity.
MATCHES = 0.005
EXAMPLES = 1000

Weights = Mapping[str, Tensor]


def prune_in_rounds(
    config: Iterative, source: SourceModel, layers: Layers, teacher: nn.Module | None, seed: int
) -> Figures:
    """Prune `source.module` in place; each round's ratio and metric, and what a ticket is worth."""
    assert source.module is not None
    start, dense = _rewinding_point(config, source, seed) if config.rewind is not None else (None, {})
    rounds: list[Figures] = []
    for number in range(1, config.rounds + 1):
        ratio = round_ratio(config.ratio, number, config.rounds)
        weights = {name: weight_of(layer) for name, layer in layers.items()}
        masks = refuse_empty(magnitude_masks(weights, ratio, config.scope))
        if start is not None:
            source.module.load_state_dict(dict(start))
        with torch.no_grad():
            for name, weight in weights.items():
                weight.masked_fill_(~masks[name], 0)
        _train(config, source, layers, teacher, seed + number)
        rounds.append({"ratio": ratio, "metric": module_metric(source, source.module, seed, EXAMPLES)})
    ticket = {**dense, "ticket": rounds[-1]["metric"]} if dense else {}
    if ticket:
        metric = metric_name("prune", source)
        ticket["matches"] = matches(metric, ticket["ticket"], ticket["dense"])
    return {"rounds": rounds, **ticket}


def fresh_weights(module: nn.Module, seed: int) -> bool:
    """Start `module` anew by each layer's own initialisation; False, and nothing done, where one has none."""
    owners = [part for part in module.modules() if list(part.parameters(recurse=False))]
    if not all(hasattr(part, "reset_parameters") for part in owners):
        return False
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in module.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
    return True


def _rewinding_point(config: Iterative, source: SourceModel, seed: int) -> tuple[Weights, Figures]:
    """Weights early in a training from the start, and the metric of the dense network trained on from them.

    The module is left with the latter, whose magnitudes the first round prunes by.
    """
    assert source.module is not None
    assert config.finetune is not None
    assert config.rewind is not None
    begins = "anew" if fresh_weights(source.module, seed) else "as given"
    if config.rewind.steps:
        early = config.finetune.model_copy(update={"steps": config.rewind.steps})
        finetune(source, early, seed, title="to the rewinding point")
    start = {name: value.clone() for name, value in source.module.state_dict().items()}
    finetune(source, config.finetune, seed, title="the dense network")
    return start, {"begins": begins, "dense": module_metric(source, source.module, seed, EXAMPLES)}


def _train(
    config: Iterative, source: SourceModel, layers: Layers, teacher: nn.Module | None, seed: int
) -> None:
    assert config.finetune is not None
    with held(layers, unchanged) as before_step:
        finetune(source, config.finetune, seed, teacher=teacher, before_step=before_step)


def matches(metric: str, ticket: float, dense: float) -> bool:
    """Whether the ticket is within `MATCHES` of the dense network: relatively where lower is better."""
    if is_score(metric):
        return ticket >= dense - MATCHES
    return ticket <= dense * (1 + MATCHES)
