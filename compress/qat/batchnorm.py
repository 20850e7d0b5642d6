"""Batch norms folded into the convolutions before them, so that int8 kernels give their outputs directly.

`torch.fx` says which norm follows which convolution. A module that it cannot trace keeps its norms: right all
the same, only slower. The trade-off: fine-tuning goes on with the statistics there are.
"""

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def fold_batch_norms(module: nn.Module) -> int:
    """Fold in place what can be folded; how many were. Structure depends on the module's code alone."""
    pairs = _pairs(module)
    for convolution, norm in pairs:
        before, after = module.get_submodule(convolution).eval(), module.get_submodule(norm).eval()
        assert isinstance(before, nn.Conv1d | nn.Conv2d)
        assert isinstance(after, _BatchNorm)
        fused: nn.Module = fuse_conv_bn_eval(before, after)
        module.set_submodule(convolution, fused)
        module.set_submodule(norm, nn.Identity())
    return len(pairs)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of each convolution whose outputs only one batch norm reads, and of that norm."""
    try:
        graph = fx.symbolic_trace(module).graph
    except Exception:  # a forward may do anything under a tracer
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs = []
    for node in calls:
        source, norm = node.args[0] if node.args else None, module.get_submodule(str(node.target))
        if (
            isinstance(norm, _BatchNorm)
            # Without statistics of its own it takes those of each batch.
            and norm.running_mean is not None
            and isinstance(source, fx.Node)
            and source.op == "call_module"
            and isinstance(module.get_submodule(str(source.target)), CONVOLUTIONS)
            and len(source.users) == 1
            # A layer that is called twice has one weight for two places.
            and targets.count(source.target) == targets.count(node.target) == 1
        ):
            pairs.append((str(source.target), str(node.target)))
    return pairs
