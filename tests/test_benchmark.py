"""Notebook 3: the functions in its cells against plain formulas, and its figures."""

import numpy as np
import pandas as pd
import pytest
import torch
from cells import checked, dots, notebook, shown
from numpy.testing import assert_allclose

import helpers as h
from lab import measures, methods, plots_benchmark
from lab.methods import ADAM, DECAY, METHODS, REVISED, SGD, Trained

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


@pytest.mark.parametrize("more", [{}, {"mine": "yours"}, {"mine": methods.TUNED_SAES, ADAM: "new"}])
def test_dots_of_methods_stand_for_their_numbers_under_their_kinds(more):
    """In any order of rows; a new kind has a heading and a colour of its own."""
    kinds = {method.name: method.kind for method in reversed(METHODS)} | more
    table = runs(kinds, "explained", "explained_best", "classifier", "recovered")
    a, b = checked(plots_benchmark.code_or_decoder(table, pixels=0.5))
    lines, colors, heading = [], {}, None
    for y, text in enumerate(a.get_yticklabels()):
        if text.get_weight() == "bold":
            heading = text.get_text()
        else:
            names = [m for m in kinds if plots_benchmark.SHORT.get(m, m) == text.get_text()]
            colors[heading] = str(b.texts[len(lines)].get_color())
            lines.append((y, *names))
            assert [kinds[name] for name in names] == [heading]
    assert len(lines) == len(kinds) and colors.keys() == {*kinds.values()}
    assert len({*colors.values()}) == len(colors)
    means = 100 * table.groupby("method").mean(numeric_only=True).loc[[m for _, m in lines]]
    assert shown(a)[::2] == [f"{value:.0f}" for value in means.explained]
    assert shown(a)[1::2] == [f"{value:.0f}" for value in means.explained_best]
    assert shown(b) == [*(f"{value / 100:.1f}" for value in means.classifier), "pixels"]
    of_a = (a, "explained", True, 100), (a, "explained_best", False, 100)
    for axis, column, filled, scale in (*of_a, (b, "classifier", True, 1)):
        for y, method in lines:
            values = dots(axis, filled)
            drawn = values[values[:, 1] == y][:, 0]
            assert_allclose(np.sort(drawn), np.sort(scale * table[column][table.method == method]))
    _, b = checked(plots_benchmark.language(table))
    assert set(dots(b)[:, 0]) == set(table.recovered)


def test_other_figures_of_notebook_3():
    kinds = {"the paper's model": methods.PAPERS_LOSS, "its SAE": methods.TUNED_SAES}
    columns = ("parameters", "l0", "classifier", "norm-matched", "explained")
    table = runs(kinds, *columns)
    axes = checked(plots_benchmark.paper(table, {"classifier": ("pixels", 0.5)}))
    for axis, column in zip(axes, columns):
        assert_allclose(dots(axis)[:, 0], (100 if column == "explained" else 1) * table[column])

    unit = {part: random(D) for part in ("decoder row", "step", "weights", "another row")}
    axes = checked(plots_benchmark.directions({"Adam": unit, "SGD": unit}))
    for axis, part in zip(axes[1:4], ("step", "weights", "another row")):
        cosine = torch.cosine_similarity(unit[part], unit["decoder row"], dim=0)
        assert axis.get_xlabel() == f"{cosine:.2f}"

    V, A, x = random(K, D), random(K), random(2, D)
    codes = {"its SAE": (A, V, x[1]), "the paper's model": (torch.zeros(K), V, x[1])}
    axes = checked(plots_benchmark.one_digit(x[0], codes, kinds))
    parts = (A * V.norm(dim=1)).sort(descending=True)[0]
    assert_allclose([a.lines[0].get_xdata()[1] for a in axes[3:8]], parts[:5] / parts[0], rtol=1e-5)
    assert axes[1].get_xlabel() == f"error {(x[1] - x[0]).square().mean():.3f}"
