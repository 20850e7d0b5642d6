"""Moves rotary position embeddings into the attention operator.

A model computes cos and sin of every position in its own way (scaled, by layer, on a part of each head), and
turns queries and keys with a dozen nodes a layer. Here each pair is tabulated over all positions, by running
the nodes that made it, and GroupQueryAttention looks the angles up (RoFormer, arXiv:2104.09864, in the
half-split form). It leaves alone what turns neighbouring pairs instead of halves, heads that the operator
does not take, and what depends on anything but the positions.
The trade-off: a table takes context_length x rotary width x 4 bytes of the file.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from runtime.decoder import POSITION_IDS

QUERY, KEY, COS = 0, 1, 7
# GroupQueryAttention's own conditions on a head's width and on half the rotary width.
HEAD_MULTIPLE, TABLE_MULTIPLE = 16, 8
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Turned:
    """A tensor [batch, heads, length, head_dim] before it was turned, and what it was turned by."""

    plain: ir.Value
    cos: ir.Value
    sin: ir.Value

    @property
    def head_dim(self) -> int:
        assert self.plain.shape is not None
        width = self.plain.shape[-1]
        assert isinstance(width, int)
        return width


def fuse_rotary(graph: ir.Graph, context_length: int) -> int:
    """Rewrite every attention node whose query and key are turned by one tabulated pair; how many were."""
    positions = next(value for value in graph.inputs if value.name == POSITION_IDS)
    tables: dict[tuple[ir.Value, ir.Value], tuple[ir.Value, ir.Value] | None] = {}
    count = 0
    for node in [node for node in graph if node.op_type == "GroupQueryAttention"]:
        query, key = (_turned(node.inputs[at]) for at in (QUERY, KEY))
        if query is None or key is None or (query.cos, query.sin) != (key.cos, key.sin):
            continue
        if query.head_dim % HEAD_MULTIPLE:
            continue
        pair = (query.cos, query.sin)
        if pair not in tables:
            tables[pair] = _register(graph, _tabulate(positions, pair, context_length), len(tables))
        if (found := tables[pair]) is None:
            continue
        _turn_inside(node, query, key, found, positions)
        count += 1
    return count


def _turn_inside(
    node: ir.Node, query: _Turned, key: _Turned, table: tuple[ir.Value, ir.Value], positions: ir.Value
) -> None:
    for at, turned in ((QUERY, query), (KEY, key)):
        flat = node.inputs[at]
        assert flat is not None
        reshape = flat.producer()
        assert reshape is not None
        made = ir.node("Reshape", [_by_position(turned.plain, node), reshape.inputs[1]])
        made.outputs[0].shape, made.outputs[0].type = flat.shape, flat.type
        node.prepend(made)
        node.replace_input_with(at, made.outputs[0])
    node.resize_inputs(COS + 3)
    for at, value in enumerate((*table, positions), COS):
        node.replace_input_with(at, value)
    node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 1)


def _by_position(plain: ir.Value, before: ir.Node) -> ir.Value:
    """`plain` as [batch, length, heads, head_dim]: what it was transposed from, or else transposed back."""
    source = _source(plain, "Transpose")
    if source is not None:
        return source
    transpose = ir.node("Transpose", [plain], attributes={"perm": [0, 2, 1, 3]})
    before.prepend(transpose)
    return transpose.outputs[0]


def _turned(flat: ir.Value | None) -> _Turned | None:
    """What an attention input was before rotation: Reshape(Transpose(rotated)) is followed backwards."""
    transpose = _producer(_source(flat, "Reshape"), "Transpose")
    if transpose is None:
        return None
    # Some models turn a part of each head, and append the rest as it is.
    whole = transpose.inputs[0]
    concat = _producer(whole, "Concat")
    rotated = concat.inputs[0] if concat is not None and len(concat.inputs) == 2 else whole
    found = _match_sum(rotated)
    if found is None:
        return None
    tensor, cos, sin = found
    if rotated is whole or concat is None:
        return _Turned(tensor, cos, sin)
    both = _source(tensor, "Slice")
    if both is None or _source(concat.inputs[1], "Slice") is not both:
        return None
    return _Turned(both, cos, sin)


def _match_sum(value: ir.Value | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """x, cos, sin where `value` is x * cos + [-x2, x1] * sin, in either order of every pair."""
    total = _producer(value, "Add")
    if total is None:
        return None
    products = [_producer(each, "Mul") for each in total.inputs]
    for straight, crossed in (products, products[::-1]):
        if straight is None or crossed is None:
            return None
        for half, sin in (crossed.inputs, crossed.inputs[::-1]):
            tensor = _half_turned(half)
            if tensor is not None and sin is not None and tensor in straight.inputs:
                cos = straight.inputs[1 - straight.inputs.index(tensor)]
                return (tensor, cos, sin) if cos is not None else None
    return None


def _half_turned(value: ir.Value | None) -> ir.Value | None:
    """x where `value` is Concat(-second half of x, first half of x)."""
    concat = _producer(value, "Concat")
    if concat is None or len(concat.inputs) != 2:
        return None
    negated, first = (
        _producer(_source(concat.inputs[0], "Neg"), "Slice"),
        _producer(concat.inputs[1], "Slice"),
    )
    if negated is None or first is None or negated.inputs[0] is not first.inputs[0]:
        return None
    tensor = first.inputs[0]
    width = tensor.shape[-1] if tensor is not None and tensor.shape is not None else None
    if not isinstance(width, int) or _start(first) != 0 or _start(negated) != width // 2:
        return None
    return tensor


def _register(
    graph: ir.Graph, table: tuple[Floats, Floats] | None, index: int
) -> tuple[ir.Value, ir.Value] | None:
    if table is None:
        return None
    names = (f"rotary_cos_{index}", f"rotary_sin_{index}")
    cos, sin = (
        ir.val(name, const_value=ir.tensor(values, name=name))
        for name, values in zip(names, table, strict=True)
    )
    for value in (cos, sin):
        graph.register_initializer(value)
    return cos, sin


def _tabulate(
    positions: ir.Value, pair: tuple[ir.Value, ir.Value], length: int
) -> tuple[Floats, Floats] | None:
    """cos and sin of all positions, float32 [length, rotary width / 2] each; else None."""
    assert positions.graph is not None
    try:
        part = ir.convenience.extract(positions.graph, [positions], pair)
    except ValueError:  # something besides the positions has a say
        return None
    evaluator = ReferenceEvaluator(ir.to_proto(ir.Model(part, ir_version=10)))
    values = evaluator.run(None, {POSITION_IDS: np.arange(length)[None]})
    tables = [np.asarray(value, np.float32).reshape(-1, value.shape[-1]) for value in values]
    if len(tables[0]) != length or tables[0].shape != tables[1].shape:
        return None
    halves = [np.split(table, 2, axis=1) for table in tables]
    if not all(np.array_equal(first, second) for first, second in halves):
        return None
    if halves[0][0].shape[1] % TABLE_MULTIPLE:
        return None
    return np.ascontiguousarray(halves[0][0]), np.ascontiguousarray(halves[1][0])


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def _source(value: ir.Value | None, op_type: str) -> ir.Value | None:
    """The first input of the node that made `value`, if it is of that type."""
    node = _producer(value, op_type)
    return node.inputs[0] if node is not None else None


def _start(node: ir.Node) -> int | None:
    constant = node.inputs[1].const_value if node.inputs[1] is not None else None
    return int(constant.numpy().ravel()[0]) if constant is not None else None
