"""A training run on disk: weights, optimiser state, random state and counters, in one safetensors file.

No pickle. A checkpoint belongs to one recipe and seed (its `key`); another run's is ignored. It does not
decide when to save.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from models.errors import TrainingError
from models.storage import write_atomically


@dataclass(slots=True)
class RunState:
    """Where a run stands: steps and seconds done, (step, loss) points, and the best validation so far."""

    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)


def save_checkpoint(path: Path, key: str, module: nn.Module, optimizer: Optimizer, state: RunState) -> None:
    """Write everything that `load_checkpoint` needs to go on exactly from here, atomically."""
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    numbers: dict[str, int] = {}
    for index, values in enumerate(_optimizer_states(optimizer)):
        for name, value in values.items():
            # bitsandbytes counts steps in plain numbers.
            (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{index}.{name}"] = value
    tensors["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    counters = asdict(state) | {"best_weights": {}}
    metadata = {"key": key, "state": json.dumps(counters), "numbers": json.dumps(numbers)}
    write_atomically(path, save({name: _own(value) for name, value in tensors.items()}, metadata))


def load_checkpoint(path: Path, key: str, module: nn.Module, optimizer: Optimizer) -> RunState | None:
    """Put the run at `path` back into `module`, `optimizer` and torch's generators; None when it is not
    `key`'s.

    Raises TrainingError for a damaged file.
    """
    try:
        metadata, tensors = _read(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path}: damaged checkpoint ({error}); delete it to start over") from None
    if metadata.get("key") != key:
        return None
    module.load_state_dict(_under("model.", tensors))
    stored = {**_under("optimizer.", tensors), **_under("optimizer.", json.loads(metadata["numbers"]))}
    _restore_optimizer(optimizer, stored)
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    counters = json.loads(metadata["state"])
    counters["curve"] = [(step, loss) for step, loss in counters["curve"]]
    return RunState(**counters | {"best_weights": _under("best.", tensors)})


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as stored:
        return stored.metadata() or {}, {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


def _optimizer_states(optimizer: Optimizer) -> Iterator[dict[str, Any]]:
    """Each parameter's state, in the order of the groups; read directly, since bitsandbytes nests it."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield optimizer.state[parameter]


def _restore_optimizer(optimizer: Optimizer, values: Mapping[str, Any]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in values.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        # torch keeps its count of steps on the CPU unless the whole step runs on the device.
        moves = isinstance(value, Tensor) and (value.ndim > 0 or optimizer.defaults.get("fused"))
        optimizer.state[parameter][key] = value.to(parameter.device) if moves else value


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _own(tensor: Tensor) -> Tensor:
    """A CPU copy that shares no memory: safetensors refuses the tied weights of a decoder."""
    return tensor.detach().to("cpu", copy=True).contiguous()
