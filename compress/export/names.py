"""What people call a node of an exported graph: the path of the torch module that it comes from.

torch's exporter notes it in each node's metadata, which `graph.strip` removes for its size; the path alone
stays, as the name of the nodes that multiply by weights or look up in them.
"""

import ast
from collections import Counter
from collections.abc import Mapping, Sequence

from onnx import ModelProto

SCOPES = "pkg.torch.onnx.name_scopes"
WEIGHTED = {"MatMul", "Gemm", "Gather", "Conv"}


def module_path(metadata: Mapping[str, str]) -> str:
    """As `layers.0.attention.query`; empty where nothing is noted, or where the model itself computes."""
    scopes = ast.literal_eval(metadata.get(SCOPES, "[]"))
    return str(scopes[-2]) if len(scopes) > 1 else ""


def joined_scopes(paths: Sequence[str]) -> dict[str, str]:
    """Metadata for one node that does the work of several modules: `layers.0.query+key+value`."""
    known = [path for path in paths if path]
    if not known:
        return {}
    names = [path.rpartition(".")[2] for path in known[1:]]
    return {SCOPES: repr(["", "+".join([known[0], *names]), "joined"])}


def weighted_paths(model: ModelProto) -> list[tuple[int, str]]:
    """(number of the node, path) of every node that may read a weight and whose module is known.

    No two are called the same, which onnxruntime refuses: a module's second run is `path:2`.
    """
    found = (
        (number, module_path({prop.key: prop.value for prop in node.metadata_props}))
        for number, node in enumerate(model.graph.node)
        if node.op_type in WEIGHTED
    )
    seen: Counter[str] = Counter()
    unique = []
    for number, path in found:
        if path:
            seen[path] += 1
            unique.append((number, path if seen[path] == 1 else f"{path}:{seen[path]}"))
    return unique
