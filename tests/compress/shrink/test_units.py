import torch

from compress.shrink.units import Cut, Units, cut_out, per_unit, removed, silence

# Three units after an offset of one, two entries each, read along axis 1 and written along axis 0.
UNITS = Units("here", "channels", 3, (Cut("out", 0, "writes"), Cut("in", 1, "reads", offset=1, span=2)))


def test_a_units_slices_are_cut_out_and_the_rest_stays() -> None:
    state = {"out": torch.arange(3.0), "in": torch.arange(14.0).view(2, 7), "other": torch.ones(1)}
    smaller = cut_out(state, [(UNITS, torch.tensor([1]))])
    assert smaller["out"].tolist() == [0, 2]
    assert smaller["in"].tolist() == [[0, 1, 2, 5, 6], [7, 8, 9, 12, 13]]
    assert smaller["other"] is state["other"]


def test_cuts_of_the_same_tensor_add_up() -> None:
    twice = Units("here", "channels", 2, (Cut("in", 1, "reads"), Cut("in", 1, "reads", offset=2)))
    other = Units("there", "channels", 2, (Cut("in", 0, "writes"),))
    state = {"in": torch.arange(8.0).view(2, 4)}
    smaller = cut_out(state, [(twice, torch.tensor([0])), (other, torch.tensor([1]))])
    assert smaller["in"].tolist() == [[1, 3]]


def test_silencing_zeroes_what_reads_and_nothing_else() -> None:
    state = {"out": torch.ones(3), "in": torch.ones(2, 7)}
    silenced = silence(state, [(UNITS, torch.tensor([0, 2]))])
    assert silenced["out"].tolist() == [1, 1, 1]
    assert silenced["in"].tolist() == [[1, 0, 0, 1, 1, 0, 0]] * 2
    assert state["in"].eq(1).all()


def test_sums_by_unit_and_the_complement() -> None:
    assert per_unit(torch.arange(7.0), UNITS.cuts[1], 3).tolist() == [3, 7, 11]
    assert removed(5, torch.tensor([0, 3])).tolist() == [1, 2, 4]
