"""The `phases` step: quantizes a decoder in several ways and keeps the fastest for each size of a call.

steps:
  - method: phases
    graphs:
      - {scheme: int4}                 # one sequence alone is bound by reading the weights
      - {scheme: int8-dynamic}         # many together, and prompts, by arithmetic
    max_size: 1.0                      # all graphs together, of the float32 graph's bytes
"""

import logging
import shutil
from pathlib import Path

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.order import rounded_already
from compress.phases.choice import choose
from compress.phases.config import PhasesConfig
from compress.step import Calibration, Figures, GraphMethod, register
from runtime.manifest import DecoderGraph, PhaseGraph, Task

logger = logging.getLogger(__name__)


def run(
    config: PhasesConfig, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> tuple[GraphArtifact, Figures]:
    """Write the graphs that are kept into `folder`, the first under the decoder's own name."""
    from compress.phases.timing import time_calls

    assert isinstance(graph.graph, DecoderGraph)
    made = _candidates(config, graph, folder, calibration)
    times = time_calls({name: (each.path, graph.graph) for name, each in made.items()})
    sizes = {name: each.size_bytes for name, each in made.items()}
    schedule = choose(times, sizes, config.max_size * graph.size_bytes, config.min_gain)
    target = _keep(graph.graph, made, schedule, folder)
    logger.info("phases: %s", ", ".join(f"{name} from {start} tokens" for start, name in schedule))
    milliseconds = {
        name: {str(n): round(s * 1e3, 3) for n, s in found.items()} for name, found in times.items()
    }
    return target, {
        "phases": [{"from_tokens": start, "graph": name} for start, name in schedule],
        "milliseconds": milliseconds,
        "bytes_before": graph.size_bytes,
        "bytes_after": target.size_bytes,
    }


def samples(config: PhasesConfig) -> int:
    """The most that one of the schemes looks at."""
    from compress.quantize import step as quantize

    return max(quantize.samples(scheme) for scheme in config.graphs)


def check(config: PhasesConfig, task: Task) -> None:
    """Refuse models whose calls do not differ in size, before anything is trained."""
    if task != "text-generation":
        raise StepError("phases is for decoders (text-generation); use 'quantize' with one scheme")


def _candidates(
    config: PhasesConfig, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> dict[str, GraphArtifact]:
    """Each candidate in a folder of its own, by its scheme's name."""
    from compress.quantize import step as quantize

    made = {}
    for scheme in config.graphs:
        place = folder / scheme.variant
        place.mkdir()
        made[scheme.variant], _ = quantize.run(scheme, graph, place, calibration)
    return made


def _keep(
    graph: DecoderGraph, made: dict[str, GraphArtifact], schedule: list[tuple[int, str]], folder: Path
) -> GraphArtifact:
    """Move the graphs of `schedule` into `folder` and remove the other candidates."""
    first = schedule[0][1]
    kept = list(dict.fromkeys(name for _, name in schedule))
    files = {name: graph.file if name == first else f"decoder-{name}.onnx" for name in kept}
    for name, file in files.items():
        made[name].path.rename(folder / file)
    for each in made.values():
        shutil.rmtree(each.folder)
    phases = tuple(PhaseGraph(from_tokens=start, file=files[name]) for start, name in schedule[1:])
    described = graph.model_copy(update={"phases": phases})
    return GraphArtifact(folder, described, made[first].signature)


register(
    GraphMethod("phases", PhasesConfig, run, check, timed=True, conflict=rounded_already, samples=samples)
)
