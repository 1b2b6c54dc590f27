"""Figures: that they show the numbers they are given, and say what is true of them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from lab import measures, plane
from lab.figures import ablation, benchmark, theorem
from lab.figures.style import UNIT_COLORS


def test_a_point_has_the_colour_of_its_unit_and_the_area_of_its_vote():
    points, _, centres = plane.make_clusters()
    W = centres / centres.norm(dim=1, keepdim=True)
    b = torch.tensor([-2.0, -2, -2, -2, -99])
    _, axis = plt.subplots()
    theorem.add_layer(axis, points, W, b, competition=False, start=(-W, b))
    active = (points @ W.T + b) > 0
    marks = axis.collections[0]
    for point, color in zip(active, marks.get_facecolors()):
        units = point.nonzero()[:, 0].tolist()
        expected = (
            UNIT_COLORS[units[0]]
            if len(units) == 1
            else theorem.SEVERAL_ACTIVE
            if units
            else theorem.NONE_ACTIVE
        )
        assert to_hex(color) == to_hex(expected)
    votes = plane.votes_without_competition(torch.relu(points @ W.T + b))
    assert_allclose(marks.get_sizes(), theorem.AREA_OF_VOTE * votes, rtol=1e-5)
    lines = axis.lines
    assert [line.get_linestyle() for line in lines] == ["-", "-", "-", "-", "--"]
    for j, line in enumerate(lines):
        assert_allclose(line.get_xydata() @ W[j].numpy() + float(b[j]), 0, atol=1e-3)


def test_the_fate_of_a_layer_is_said_as_it_is():
    points, cluster, centres = plane.make_clusters()
    W = centres / centres.norm(dim=1, keepdim=True)
    cases = {"all units are dead": (W, -99), "one unit for each cluster": (W, -2)}
    cases["clusters missed: 1"] = W[[0, 0, 2, 3, 4]], -2
    share = float((points @ W.T > 0).float().mean())
    cases[f"units are active on {share:.0%} of the points"] = W, 0
    cases["clusters share units"] = W, torch.tensor([0, -2, -2, -2, -2])
    for said, (W, bias) in cases.items():
        b = torch.zeros(5) + bias
        assert theorem.describe_layer(torch.relu(points @ W.T + b), cluster) == said


def test_copies_stand_side_by_side_in_the_correlations():
    copies = torch.arange(24) % 3 == 0  # of one unit; the others are alone
    codes = torch.where(copies[:, None], torch.rand(50), torch.rand(24, 50))
    R, order = ablation.sort_correlations(torch.corrcoef(codes))
    assert_allclose(R, abs(torch.corrcoef(codes)[order][:, order]), rtol=1e-5)
    block = np.flatnonzero(R.diagonal(1) > 0.999)  # each copy but the last, and the next
    assert len(block) == copies.sum() - 1 and np.ptp(block) == len(block) - 1
    units = ablation.units_of_largest_block(R)  # eight, five of them copies
    assert len(units) == 8 and len({*units} & {*block, block[-1] + 1}) >= 5


def test_shares_of_independent_units_are_those_of_all_cases():
    usage = np.array([0.2, 0.5, 0.9])
    cases = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    expected = np.zeros(4)
    for case in cases:
        expected[sum(case)] += np.prod(np.where(case, usage, 1 - usage))
    assert_allclose(ablation.shares_if_independent(usage), expected)


def test_the_formula_is_drawn_through_its_own_numbers():
    row = {"data": "MNIST", "units": "64", "ratio": 2.0, "share": 40}
    fig = ablation.draw_how_sparse(pd.DataFrame([row]))
    (curve, *marks) = fig.axes[1].lines
    x, y = curve.get_xydata().T
    share = measures.predicted_share_active(64, 128)
    assert np.interp(2, x, y) == pytest.approx(share, abs=0.1)
    assert marks[0].get_xydata().tolist() == [[2, 40]]
    crossing = fig.axes[0].lines[2].get_xydata()
    assert crossing[0, 0] == pytest.approx(share)


def test_agreements_stand_beside_their_change():
    keys = [(c, m, d) for c in ("off", "noise") for m in "CB" for d in ("MNIST", "Fashion-MNIST")]
    table = pd.DataFrame(keys, columns=["change", "model", "data"])
    table["agreement"] = 1 - np.arange(8) / 8
    axes = ablation.draw_agreements(table).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["off", "noise"]
    for axis, model in zip(axes, "CB"):
        of_digits, of_clothes, _ = axis.lines
        for line, data in ((of_digits, "MNIST"), (of_clothes, "Fashion-MNIST")):
            own = table[(table.model == model) & (table.data == data)]
            x, y = line.get_data()
            assert_allclose(x, own.agreement)
            assert [round(height) for height in y] == [0, 1]


def test_methods_have_their_numbers_and_one_that_misses_its_target_is_marked():
    table = pd.DataFrame(
        {
            "method": ["a", "a", "b"],
            "seed": [0, 1, 0],
            "active": [17.0, 17.2, 23.0],
            "explained": [40, 50, 70],
            "best explained": [60, 70, 80],
            "classifier": [93.0, 94.0, 95.0],
        }
    )
    a, b = benchmark.draw_code_or_decoder(table, 17, pixels=92.0).axes
    names = [text.get_text() for text in a.get_yticklabels()]
    assert names == ["a", "b (23.0 active)"]
    drawn = {(round(x), y) for line in a.lines for x, y in line.get_xydata()}
    assert {(40, 0), (50, 0), (60, 0), (70, 0), (70, 1), (80, 1)} <= drawn
    assert [text.get_text() for text in a.texts][:2] == ["45", "65"]
    assert [text.get_text() for text in b.texts] == ["93.5", "95.0", "pixels"]
