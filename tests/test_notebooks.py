"""What cells of the notebooks define, against plain formulas; and their figures."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from cells import functions
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

import helpers as h
from lab import measures, methods, plane
from lab.figures import ablation, benchmark, theorem
from lab.figures.style import UNITS

rng = torch.Generator().manual_seed(0)
E = torch.rand(12, 5, generator=rng).double()


def test_notebook_1_one_step_of_scikit_learn_is_one_step_of_em():
    x = plane.make_clusters()[0][:60].double()
    em_step = functions("1_theorem")["em_step"]
    assert_allclose(em_step(x[:4], x), plane.descent_step(x[:4], x), rtol=1e-9)


def test_notebook_1_heights_are_standard_deviations():
    loss = functions("1_theorem")["loss_with_heights"](E)
    e = np.exp(-E.numpy()) * E.numpy().std(0, ddof=1)
    assert loss.item() == pytest.approx(-np.log(e.sum(1)).sum())


def test_notebook_1_models_have_the_terms_that_their_names_say():
    terms = {"lse": 1, "variance": 1, "decorrelation": 1}
    weights = functions("1_theorem", "weights")["WEIGHTS"]
    assert {name: [*(terms | changed).values()] for name, changed in weights.items()} == {
        "A: log-sum-exp": [1, 0, 0],
        "B: + variance": [1, 1, 0],
        "C: + decorrelation": [1, 1, 1],
        "D: without log-sum-exp": [0, 1, 1],
    }


def test_notebook_2_denominators_are_dealt_out_and_the_total_is_kept():
    """With the gradient of the log-sum-exp if all are equal."""
    dealt_loss = functions("2_ablation")["dealt_loss"]

    def gradient(loss, E):
        E = E.clone().requires_grad_()
        return torch.autograd.grad(loss(E), E)[0]

    def dealt(E):
        return dealt_loss(torch.Generator().manual_seed(1), variance=0, decorrelation=0)(E)

    pushed, e = gradient(dealt, E), torch.exp(-E)
    assert float(pushed.sum()) == pytest.approx(12)
    votes = (pushed / e)[:, 0]
    assert_allclose(pushed / e, votes[:, None].expand(12, 5), rtol=1e-9)
    ratio = votes.sort().values * e.sum(1).sort(descending=True).values
    assert_allclose(ratio, ratio[:1].expand(12), rtol=1e-9)  # they are those, in another order
    assert not torch.allclose(votes * e.sum(1), torch.ones(12).double(), atol=1e-3)
    equal = torch.stack([E[0].roll(i) for i in range(12)])
    assert_allclose(gradient(dealt, equal), h.responsibilities(equal), rtol=1e-9)
    loss = dealt_loss(torch.Generator().manual_seed(1), variance=3, decorrelation=5)
    rest = 3 * h.variance_loss(E) + 5 * h.decorrelation_loss(E)
    assert float(loss(E) - dealt(E)) == pytest.approx(float(rest))


def test_notebook_2_models_have_the_terms_that_their_names_say():
    names = functions("2_ablation", "losses")
    weights = {"A": (1, 0, 0), "B": (1, 1, 0), "C": (1, 1, 1), "D": (0, 1, 1)}
    for letter, terms in weights.items():
        expected = h.decoder_free_loss(E, *terms)
        assert names["LOSSES"][names[letter]](E) == expected
    off = h.decoder_free_loss(E, competition=False)
    assert names["LOSSES"][names["OFF"]](E) == off and off != h.decoder_free_loss(E)


def test_notebook_2_changes_are_those_that_their_names_say(monkeypatch):
    names = functions("2_ablation", "agreements", K=5, SHORT=2, x=None, B="B", C="C")
    asked = {}

    def train_layer(loss, x, K, seed, epochs, **options):
        asked.update(loss=loss(E), epochs=epochs, **options)
        return {epochs: lambda x: E}, None

    names |= {"train_layer": train_layer, "trained": {("C", 3): {2: lambda x: E}}, "x_test": None}
    names["trained"]["B", 3] = names["trained"]["C", 3]
    names["dealt_loss"] = lambda rng, **weights: lambda E: ("dealt", weights)
    for model, decorrelation in (("C", 1), ("B", 0)):
        with_competition = h.decoder_free_loss(E, decorrelation=decorrelation)
        off = h.decoder_free_loss(E, decorrelation=decorrelation, competition=False)
        facts = {
            "competition off": {"loss": off},
            names["DEALT"]: {"loss": ("dealt", {"decorrelation": decorrelation})},
            names["NOISE"]: {"loss": with_competition, "noise": 0.001},
            names["ORDER"]: {"loss": with_competition, "order_seed": 103},
        }
        for change, expected in facts.items():
            asked.clear()
            assert names["train_changed"]((change, model, 3)) == pytest.approx(1)
            assert asked == expected | {"epochs": 2}


def test_notebook_3_terms_that_replace_the_log_sum_exp_and_a_penalty_that_counts():
    cells = functions("3_benchmark")
    model, x = h.SparseAutoencoder(6, 5), torch.rand(9, 6, generator=rng)
    A, rest = model(x), h.decoder_free_loss(model(x), lse=0)
    S = sum(1 - np.exp(-a) for a in A.detach().flatten().tolist())
    for name, expected in {"with_count": S, "with_l1": float(A.sum())}.items():
        sparsity, other = cells[name](model, x)
        assert float(sparsity) == pytest.approx(expected, rel=1e-5) and other == rest
    count, error = cells["counting_sae_loss"](model, x)
    Z = np.exp(-(A * model.V.norm(dim=1) / 0.3).detach().numpy()).sum(1)
    assert float(count) == pytest.approx(-np.log(Z).sum(), rel=1e-5)
    assert error == methods.squared_error(model, A, x)


# --- Figures --------------------------------------------------------------------------------------


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
            UNITS[units[0]] if len(units) == 1 else theorem.SEVERAL if units else theorem.NONE
        )
        assert to_hex(color) == to_hex(expected)
    votes = plane.votes_without_competition(torch.relu(points @ W.T + b))
    assert_allclose(marks.get_sizes(), theorem.AREA * votes, rtol=1e-5)
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
    units = ablation.block_and_neighbours(R)  # eight, five of them copies
    assert len(units) == 8 and len({*units} & {*block, block[-1] + 1}) >= 5


def test_the_formula_is_drawn_through_its_own_numbers():
    row = {"data": "MNIST", "units": "64", "ratio": 2.0, "share": 0.4}
    fig = ablation.draw_how_sparse(pd.DataFrame([row]))
    (curve, *marks) = fig.axes[1].lines
    x, y = curve.get_xydata().T
    share = 100 * measures.predicted_share_active(64, 128)
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
            "explained": [0.4, 0.5, 0.7],
            "best explained": [0.6, 0.7, 0.8],
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
