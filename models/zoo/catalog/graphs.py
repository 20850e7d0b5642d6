"""Graph networks: on Cora (140 papers are labelled, 1,000 others are judged), and on the standard library.

The members for the library's import graph are the same networks, each with a name of its own: they need no
data but Python, and what they answer is another question. On it the largest class is 0.21 of the modules that
are judged, and logistic regression on a module's own words reaches 0.844.
"""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from models.registry import ModelSpec, TrainingRecipe, register

# Full-batch, as in the papers; with so few labels, what counts is how hard the network is held back.
_CORA = TrainingRecipe(
    steps=200, batch_size=1, learning_rate=1e-2, betas=(0.9, 0.999), weight_decay=0.5, threads=1
)
# Half of a class's modules are labelled, which needs less of that.
_IMPORTS = replace(_CORA, weight_decay=0.05)
_SIZES = {"width": 512, "classes": 10, "dropout": 0.5}


def _graph(
    name: str,
    floor: float,
    parameters: int,
    source: str,
    design: str = "",
    dataset: str = "cora",
    training: TrainingRecipe = _CORA,
    **config: Any,
) -> None:
    register(
        ModelSpec(
            name=name,
            family="graph",
            task="node-classification",
            build=f"models.zoo.graphs:{design or name}",
            dataset=dataset,
            metric="node-accuracy",
            floor=floor,
            training=training,
            parameters=parameters,
            source=source,
            config=MappingProxyType(config),
            tiny=MappingProxyType({"hidden": 8}),
        )
    )


def _imports(design: str, floor: float, parameters: int, source: str, **recipe: Any) -> None:
    """`design` on the import graph of the standard library."""
    training = replace(_IMPORTS, **recipe)
    _graph(f"{design}-imports", floor, parameters, source, design, "imports", training, **_SIZES)


_GCN = "Kipf and Welling, Semi-supervised classification with graph convolutions, arXiv:1609.02907, 2016"
_SAGE = "Hamilton et al., Inductive representation learning, arXiv:1706.02216, 2017"
_GAT = "Velickovic et al., Graph attention networks, arXiv:1710.10903, 2017"
_GIN = "Xu et al., How powerful are graph neural networks?, arXiv:1810.00826, 2018"

_graph("gcn", 0.80, 92_231, _GCN)
_graph("graphsage", 0.75, 92_199, _SAGE)
_graph("gat", 0.77, 92_373, _GAT)
_graph("gin", 0.68, 96_449, _GIN)
_imports("gcn", 0.88, 33_482, _GCN)
_imports("graphsage", 0.87, 33_450, _SAGE)
_imports("gat", 0.86, 33_630, _GAT)
