"""Notebook 3: the functions in its cells against plain formulas, and its figures."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from cells import checked, criteria, dots, notebook
from numpy.testing import assert_allclose

import helpers as h
from lab import measures, methods, plots, plots_benchmark
from lab.methods import ADAM, DECAY, METHODS, REVISED, SGD, Method, Trained

K, D = 24, 9
rng = torch.Generator().manual_seed(0)
X = torch.randn(256, D, generator=rng) + 0.3
CELLS = notebook("3_benchmark", K=K, x=X, x_test=X, typical=0, SGD_DECAY="with SGD, too")
BY_NAME = {method.name: method for method in METHODS}


def random(*shape):
    return torch.rand(*shape, generator=rng)


def runs(kinds, *scores):
    """A table with a row for each of {method: kind} and for each of two seeds."""
    keys = [(method, kind, seed) for method, kind in kinds.items() for seed in (0, 1)]
    table = pd.DataFrame(keys, columns=["method", "kind", "seed"])
    return table.assign(**{score: random(len(keys)).numpy() for score in scores})


def test_an_l1_penalty_stands_in_the_place_of_the_log_sum_exp_alone():
    model, x = h.Encoder(D, K, seed=2), X[:64]
    E = model(x)
    for loss in (h.decoder_free_loss, h.revised_loss):
        expected = loss(model, x, 3) - 3 * h.lse_loss(E) + 3 * E.sum() / K
        assert loss(model, x, 3, CELLS["l1"]).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", [ADAM, SGD, DECAY, REVISED])
def test_a_step_is_of_the_loss_at_the_last_strength_without_weight_decay(name):
    """Up to a factor, which is SGD's."""
    model = h.Encoder(D, K, seed=1)
    run, E = Trained(BY_NAME[name], 1, model, 0.7), model(X)
    volume = h.log_det_loss(E) if name == REVISED else h.infomax_loss(E)
    expected = 0.7 * h.lse_loss(E) + 2 * volume  # of two minibatches
    loss = CELLS["loss_of_step"](run)
    factor = 2 * 1.7 if name == SGD else 1
    assert factor * loss(model, X).item() == pytest.approx(expected.item(), rel=1e-5)
    row = CELLS["measure_directions"](run)
    assert row == measures.cosines(model, loss, X) | measures.decoding(model, X, X)


def test_batch_top_k_keeps_the_largest_of_a_minibatch_and_then_those_above_a_threshold():
    model = CELLS["BatchTopK"](D, K, seed=0, k=2)
    A = torch.relu(model.pre_activations(X)).detach()
    smallest = A.flatten().sort(descending=True).values[2 * len(X) - 1]
    assert torch.equal(model(X).detach(), A * (A >= smallest))
    model.fix_threshold(X)
    alone = torch.cat([model(row[None]) for row in X]).detach()  # as all at once
    assert_allclose(alone, A * (A >= smallest), atol=1e-6)


def test_each_criterion_has_its_bound():
    assert criteria("3_benchmark") == {
        "classifier: the paper's model minus its SAE, points": ">= 2",
        "explained: L1 SAE minus the paper's loss with SGD": ">= 0.05",
        "explained: weight decay minus none": ">= 0.05",
        "explained: one divisor minus Adam": ">= 0.03",
        "explained: change with L1 in both losses": "<= 0.02",
        "purity: the paper's loss minus L1 SAE": "> 0",
        "active units, mean of seeds: relative distance from L0": "<= 0.05",
    }


def test_tiles_are_pictures_in_a_grid_each_on_its_own_scale_or_all_on_one():
    W = torch.tensor([1.0, 2, 3, 4]) * torch.tensor([[1], [10], [-1]])
    _, (a, b) = plt.subplots(1, 2)
    plots.tiles(a, W, 2, framed=[1])
    plots.tiles(b, W, 2, scale=40)
    own, one = (axis.images[0].get_array() for axis in (a, b))  # pictures of 2 x 2 in a rim of 1
    assert own.shape == (8, 8) and a.patches[0].get_xy() == (4, 0)
    assert_allclose(own[1:3, 1:3].ravel(), W[0] / W[0].quantile(0.99))
    assert_allclose(own[1:3, 5:7], own[1:3, 1:3])
    assert_allclose(own[5:7, 1:3], -own[1:3, 1:3])
    assert_allclose(one[1:3, 5:7].ravel(), W[1] / 40)
    red, _, blue, _ = a.images[0].cmap(1.0)
    assert red > blue


@pytest.mark.parametrize("more", [{}, {"mine": "yours"}, {"mine": methods.TUNED_SAES, ADAM: "new"}])
def test_dots_of_methods_stand_for_their_numbers_under_their_kinds(more):
    """In any order of rows; a new kind has a heading and a colour of its own."""
    kinds = {method.name: method.kind for method in reversed(METHODS)} | more
    table = runs(kinds, "explained", "explained_best", "classifier", "recovered")
    a, b = checked(plots_benchmark.code_or_decoder(table, pixels=0.5))
    names = [text.get_text() for text in a.get_yticklabels()]
    headings = [text.get_text() for text in a.get_yticklabels() if text.get_weight() == "bold"]
    assert sorted(headings) == sorted({*kinds.values()})
    means, lines, colors = table.groupby("method").mean(numeric_only=True), [], {}
    for y, name in enumerate(names):
        if name in headings:
            heading = name
            continue
        (method,) = [m for m in kinds if plots_benchmark.SHORT.get(m, m) == name]
        lines.append((y, method))
        colors[heading] = str(b.texts[len(lines) - 1].get_color())
        assert kinds[method] == heading
    assert len(lines) == len(kinds) and len({*colors.values()}) == len(headings)
    drawn_a, drawn_b = ([text.get_text() for text in axis.texts] for axis in (a, b))
    assert drawn_a[::2] == [f"{100 * means.explained[m]:.0f}" for _, m in lines]
    assert drawn_a[1::2] == [f"{100 * means.explained_best[m]:.0f}" for _, m in lines]
    assert drawn_b == [*(f"{means.classifier[m]:.1f}" for _, m in lines), "pixels"]
    of_a = (a, "explained", True, 100), (a, "explained_best", False, 100)
    for axis, column, filled, scale in (*of_a, (b, "classifier", True, 1)):
        for y, method in lines:
            values = dots(axis, filled)
            drawn = values[values[:, 1] == y][:, 0]
            assert_allclose(np.sort(drawn), np.sort(scale * table[column][table.method == method]))
    assert any(np.allclose(line.get_xdata(), 0.5) for line in b.lines)
    _, b = checked(plots_benchmark.language(table))
    assert set(dots(b)[:, 0]) == set(table.recovered)


def test_other_figures_of_notebook_3():
    kinds = {"the paper's model": methods.PAPERS_LOSS, "its SAE": methods.TUNED_SAES}
    columns = ("parameters", "l0", "classifier", "norm-matched", "explained")
    table = runs(kinds, *columns)
    axes = checked(plots_benchmark.paper(table, {"classifier": ("pixels", 0.5)}))
    for axis, column in zip(axes, columns):
        assert_allclose(dots(axis)[:, 0], (100 if column == "explained" else 1) * table[column])
    means = table.groupby("method", sort=False).l0.mean()
    assert [text.get_text() for text in axes[1].texts] == [f"{value:.1f}" for value in means]

    unit = {part: random(D) for part in ("decoder row", "step", "weights", "another row")}
    axes = checked(plots_benchmark.directions({"Adam": unit, "SGD": unit}))
    for axis, part in zip(axes[1:4], ("step", "weights", "another row")):
        cosine = torch.cosine_similarity(unit[part], unit["decoder row"], dim=0)
        assert axis.get_xlabel() == f"{cosine:.2f}"

    V, A, x = random(K, D), random(K), random(2, D)
    codes = {ADAM: (A, V, x[1]), "L1 SAE": (torch.zeros(K), V, x[1])}
    kinds = {ADAM: methods.PAPERS_LOSS, "L1 SAE": methods.TUNED_SAES}
    axes = checked(plots_benchmark.one_digit(x[0], codes, kinds))
    parts = (A * V.norm(dim=1)).sort(descending=True)[0]
    assert_allclose([a.lines[0].get_xdata()[1] for a in axes[3:8]], parts[:5] / parts[0], rtol=1e-5)
    assert axes[1].get_xlabel() == f"error {(x[1] - x[0]).square().mean():.3f}"

    varies = V[0] > V[0].median()
    for dead in (0, 5):
        _, b, c = checked(plots_benchmark.units({"model": V, "sae": V}, varies, 1, dead))
        assert len(b.patches) == len(c.patches) == dead
        assert all(frame.get_xy() >= (5 * 3, 5 * 2) for frame in b.patches)  # the last five of 24
        assert np.count_nonzero(c.images[0].get_array()) == K * varies.sum()


@pytest.mark.filterwarnings("ignore:.* units are active")
def test_a_method_of_the_readers_is_one_row():
    """It is trained, measured and drawn beside the others."""

    class JumpReLU(h.SparseAutoencoder):
        def forward(self, x):
            z = self.pre_activations(x)
            return z * (z > 0.1)

    def new(x, n_units, l0, seed):
        return JumpReLU(x.shape[1], n_units, seed=seed)

    row = Method("JumpReLU", "yours", new, h.sae_loss)
    trained = methods.train_all([*METHODS[:1], row], [0], X, n_units=K, l0=5, epochs=1)
    table = measures.measure_each(trained, lambda run: measures.decoding(run.model, X, X), "")
    kinds = [run.method.kind for run in trained.values()]
    a, _ = checked(plots_benchmark.code_or_decoder(table.assign(kind=kinds, classifier=90.0)))
    names = [text.get_text() for text in a.get_yticklabels()]
    assert names == [methods.PAPERS_LOSS, plots_benchmark.SHORT[ADAM], "yours", "JumpReLU"]
