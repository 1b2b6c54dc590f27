"""Notebook 3: the functions in its cells against plain formulas, and its figures."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from cells import checked, dots, notebook
from numpy.testing import assert_allclose

import helpers as h
from lab import measures, methods, plots, plots_benchmark
from lab.methods import ADAM, DECAY, METHODS, OURS, REVISED, SGD, Method, Trained

K, D = 24, 9
rng = torch.Generator().manual_seed(0)
X = torch.randn(256, D, generator=rng) + 0.3
CELLS = notebook("3_benchmark", K=K, x=X, x_test=X, typical=0, sgd_decay="with SGD, too")
OF = {method.name: method for method in METHODS}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def random(*shape):
    return torch.rand(*shape, generator=rng)


def runs(of, *scores):
    """A table with a row for each of {method: kind} and for each of two seeds."""
    keys = [(method, kind, seed) for method, kind in of.items() for seed in (0, 1)]
    table = pd.DataFrame(keys, columns=["method", "kind", "seed"])
    return table.assign(**{score: random(len(keys)).numpy() for score in scores})


def test_another_penalty_stands_in_the_place_of_the_log_sum_exp_alone():
    model, x = h.Encoder(D, K, seed=2), X[:64]
    E = model(x)
    decay, n = X[:64].var(0).sum() / K * model.W.square().sum(), 64 / 128
    paper, revised = CELLS["replaced"](CELLS["l1"])
    expected = 3 * E.sum() / K + n * (h.variance_loss(E) + h.decorrelation_loss(E))
    assert paper(model, x, 3).item() == pytest.approx(expected.item(), rel=1e-5)
    expected = 3 * E.sum() / K + n * (h.log_det_loss(E) + decay)
    assert revised(model, x, 3).item() == pytest.approx(expected.item(), rel=1e-5)
    Z = np.exp(-E.detach().double().numpy()).sum(1)
    without = CELLS["without_competition"](E).item()
    assert without == pytest.approx(-64 * np.log(Z.mean()), rel=1e-5)


@pytest.mark.parametrize("name", [ADAM, SGD, DECAY, REVISED])
def test_a_step_is_of_the_loss_at_the_last_strength_without_weight_decay(name):
    """Up to a factor, which is SGD's."""
    model = h.Encoder(D, K, seed=1)
    of, E = Trained(OF[name], 1, model, 0.7), model(X)
    volume = h.log_det_loss(E) if name == REVISED else h.infomax_loss(E)
    expected = 0.7 * h.lse_loss(E) + 2 * volume  # of two minibatches
    loss = CELLS["loss_of_step"](of)
    factor = 2 * 1.7 if name == SGD else 1
    assert factor * loss(model, X).item() == pytest.approx(expected.item(), rel=1e-5)
    row = CELLS["measure_directions"](of)
    assert row == measures.cosines(model, loss, X) | measures.decoded(model, X, X)


def test_batch_top_k_keeps_the_largest_of_a_minibatch_and_then_those_above_a_threshold():
    model = CELLS["BatchTopK"](D, K, seed=0, k=2)
    A = torch.relu(model.pre_activations(X)).detach()
    smallest = A.flatten().sort(descending=True).values[2 * len(X) - 1]
    assert torch.equal(model(X).detach(), A * (A >= smallest))
    model.fix_threshold(X)
    alone = torch.cat([model(row[None]) for row in X]).detach()  # as all at once
    assert_allclose(alone, A * (A >= smallest), atol=1e-6)


def test_tiles_are_pictures_in_a_grid_each_on_its_own_scale_or_all_on_one():
    W = torch.tensor([1.0, 2, 3, 4]) * torch.tensor([[1], [10], [-1]])
    _, (a, b) = plt.subplots(1, 2)
    plots.tiles(a, W, 2, framed=[1])
    plots.tiles(b, W, 2, scale=40)
    own, one = (axis.images[0].get_array() for axis in (a, b))  # pictures of 2 x 2 in a rim of 1
    assert own.shape == (8, 8)
    assert_allclose(own[1:3, 1:3].ravel(), W[0] / W[0].quantile(0.99))
    assert_allclose(own[1:3, 5:7], own[1:3, 1:3])
    assert_allclose(own[5:7, 1:3], -own[1:3, 1:3])
    assert_allclose(one[1:3, 5:7].ravel(), W[1] / 40)
    assert a.patches[0].get_xy() == (4, 0)
    red, _, blue, _ = a.images[0].cmap(1.0)
    assert red > blue


@pytest.mark.parametrize("more", [{}, {"mine": "yours"}, {"mine": methods.SAES, ADAM: "new"}])
def test_dots_of_methods_stand_for_their_numbers_under_their_kinds(more):
    """In any order of rows; a new kind has a heading and a colour of its own."""
    of = {method.name: method.kind for method in reversed(METHODS)} | more
    table = runs(of, "explained", "explained_best", "classifier", "recovered")
    a, b = checked(plots_benchmark.code_or_decoder(table, pixels=0.5))
    names = [text.get_text() for text in a.get_yticklabels()]
    headings = [text.get_text() for text in a.get_yticklabels() if text.get_weight() == "bold"]
    assert sorted(headings) == sorted({*of.values()}) and len(names) == len(of) + len(headings)
    means, lines = table.groupby("method").mean(numeric_only=True), []
    for y, name in enumerate(names):
        if name not in headings:
            (method,) = [m for m in of if plots_benchmark.SHORT.get(m, m) == name]
            lines.append((y, method, of[method]))
            assert of[method] == [heading for heading in names[:y] if heading in headings][-1]
    of_a, of_b = ([text.get_text() for text in axis.texts] for axis in (a, b))
    assert of_a[::2] == [f"{100 * means.explained[m]:.0f}" for _, m, _ in lines]
    assert of_a[1::2] == [f"{100 * means.explained_best[m]:.0f}" for _, m, _ in lines]
    assert of_b == [*(f"{means.classifier[m]:.1f}" for _, m, _ in lines), "pixels"]
    for axis, column, filled, scale in (
        (a, "explained", True, 100),
        (a, "explained_best", False, 100),
        (b, "classifier", True, 1),
    ):
        for y, method, _ in lines:
            values = dots(axis, filled)
            drawn = values[values[:, 1] == y][:, 0]
            assert_allclose(np.sort(drawn), np.sort(scale * table[column][table.method == method]))
    colors = {
        kind: {text.get_color() for text in b.texts[:-1][i : i + 1]}
        for i, (_, _, kind) in enumerate(lines)
    }
    assert len({*map(str, colors.values())}) == len(headings)
    assert any(np.allclose(line.get_xdata(), 0.5) for line in b.lines)
    _, b = checked(plots_benchmark.language(table))
    assert set(dots(b)[:, 0]) == set(table.recovered)


def test_other_figures_of_notebook_3():
    of = {"the paper's model": methods.PAPER, "its SAE": methods.SAES}
    columns = ("parameters", "l0", "classifier", "norm-matched", "explained")
    table = runs(of, *columns)
    axes = checked(plots_benchmark.paper(table, {"classifier": ("pixels", 0.5)}))
    for axis, column in zip(axes, columns):
        scale = 100 if column == "explained" else 1
        assert_allclose(dots(axis)[:, 0], scale * table[column])
    means = table.groupby("method", sort=False).l0.mean()
    assert [text.get_text() for text in axes[1].texts] == [f"{value:.1f}" for value in means]

    unit = {part: random(D) for part in ("decoder row", "step", "weights", "another row")}
    axes = checked(plots_benchmark.directions({"Adam": unit, "SGD": unit}))
    for axis, part in zip(axes[1:4], ("step", "weights", "another row")):
        cosine = torch.cosine_similarity(unit[part], unit["decoder row"], dim=0)
        assert axis.get_xlabel() == f"{cosine:.2f}"

    V, A, x = random(K, D), random(K), random(2, D)
    codes = {ADAM: (A, V, x[1]), "L1 SAE": (torch.zeros(K), V, x[1])}
    kinds = {ADAM: methods.PAPER, "L1 SAE": methods.SAES}
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


def test_a_method_of_the_readers_is_one_row(monkeypatch):
    """It is trained, measured and drawn beside the others."""

    class JumpReLU(h.SparseAutoencoder):
        def forward(self, x):
            z = self.pre_activations(x)
            return z * (z > 0.1)

    new = lambda x, n, l0, seed: JumpReLU(x.shape[1], n, seed=seed)  # noqa: E731
    row = Method("JumpReLU", "yours", new, h.sae_loss)
    trained = methods.train_all([*METHODS[:1], row], [0], X, K, 5, 1)
    table = measures.rows(
        trained, lambda of: {"kind": of.method.kind} | measures.decoded(of.model, X, X), "measures"
    )
    a, _ = checked(plots_benchmark.code_or_decoder(table.assign(classifier=90.0)))
    names = [text.get_text() for text in a.get_yticklabels()]
    assert names == [methods.PAPER, plots_benchmark.SHORT[ADAM], "yours", "JumpReLU"]
    assert {method.kind for method in METHODS} >= {OURS} and OF[REVISED].kind == OURS
