"""Graph networks on Cora: 140 papers are labelled, and 1,000 others are judged."""

from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

# Full-batch, as in the papers; with so few labels, what counts is how hard the network is held back.
_RECIPE = TrainingRecipe(
    steps=200, batch_size=1, learning_rate=1e-2, betas=(0.9, 0.999), weight_decay=0.5, threads=1
)


def _graph(name: str, floor: float, parameters: int, source: str) -> None:
    register(
        ModelSpec(
            name=name,
            family="graph",
            task="node-classification",
            build=f"models.zoo.graphs:{name}",
            dataset="cora",
            metric="node-accuracy",
            floor=floor,
            training=_RECIPE,
            parameters=parameters,
            source=source,
            tiny=MappingProxyType({"hidden": 8}),
        )
    )


_graph(
    "gcn",
    0.80,
    92_231,
    "Kipf and Welling, Semi-supervised classification with graph convolutions, arXiv:1609.02907, 2016",
)
_graph(
    "graphsage", 0.75, 92_199, "Hamilton et al., Inductive representation learning, arXiv:1706.02216, 2017"
)
_graph("gat", 0.77, 92_373, "Velickovic et al., Graph attention networks, arXiv:1710.10903, 2017")
_graph("gin", 0.68, 96_449, "Xu et al., How powerful are graph neural networks?, arXiv:1810.00826, 2018")
