from onnx import helper

from compress.export.names import SCOPES, weighted_paths


def test_a_module_that_runs_twice_gives_two_names() -> None:
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(3)]
    for node, scopes in zip(nodes, (["", "layer.query", "q"], ["", "layer.query", "q"], []), strict=True):
        if scopes:
            node.metadata_props.add(key=SCOPES, value=repr(scopes))
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    assert weighted_paths(model) == [(0, "layer.query"), (1, "layer.query:2")]
