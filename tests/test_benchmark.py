"""Notebook 3: the functions in its cells against plain formulas, and its figures."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from cells import checked, dots, notebook, shown, sources
from numpy.testing import assert_allclose

import helpers as h
from lab import measures, methods, plots_benchmark, variants
from lab.methods import ADAM, DECAY, METHODS, REVISED, SGD, Trained

K, D = 24, 9
rng = torch.Generator().manual_seed(0)
X = torch.randn(256, D, generator=rng) + 0.3
CELLS = notebook("3_benchmark", K=K, x=X, x_test=X, typical=0, SGD_DECAY="SGD")
BY_NAME = {method.name: method for method in METHODS}


def random(*shape):
    return torch.rand(*shape, generator=rng)


def runs(kinds, *scores):
    """A table with a row for each of {method: kind} and for each of two seeds."""
    keys = [(method, kind, seed) for method, kind in kinds.items() for seed in (0, 1)]
    table = pd.DataFrame(keys, columns=["method", "kind", "seed"])
    return table.assign(**{score: random(len(keys)).numpy() for score in scores})


def test_experiments_are_those_of_the_text():
    calls, x, model = {}, X[:128], h.Encoder(D, K, seed=2)

    def train_all(methods, seeds, x, l0, **options):
        calls.update({(m.name, l0): (m, seeds) for m in methods})
        return {(m.name, seed): Trained(m, seed, model, 0.5) for m in methods for seed in seeds}

    names = CELLS | {"METHODS": METHODS, "SEEDS": [3, 5], "L0": 17, "setting": {"l0": 17}}
    names |= {"methods": SimpleNamespace(**vars(methods) | {"train_all": train_all})}
    names |= {"measures": MagicMock(), "table": MagicMock()}
    for cell in ("train-all", "controls", "with-l1", "fixed-strength", "other-sparsities"):
        exec(sources("3_benchmark")[cell].partition("\n\n\ndef measure_decoding")[0], names)
    lse, l1 = h.lse_loss(model(x)), model(x).sum() / K
    half = h.decoder_free_loss(model, x, 0.5)
    losses = {f"{ADAM}, with L1, fixed strength": half - lse / 2 + l1 / 2}
    losses |= {f"{ADAM}, fixed strength": half, names["ONE_DIVISOR"]: half + lse / 2}
    losses[f"{REVISED}, with L1"] = h.revised_loss(model, x) - lse + l1
    losses[f"{SGD}, + weight decay"] = (half + lse / 2 + h.weight_decay(model, x)) / 2
    for name, expected in losses.items():
        method, seeds = calls[name, 17]
        assert method.loss(model, x).item() == pytest.approx(expected.item(), rel=1e-4)
        assert method.steered == ("fixed" not in name) and seeds == [3, 5]
    assert calls[names["ONE_DIVISOR"], 17][0].fit_options == {"optimizer": variants.AdamByUnit}
    sizes = {(l0, len(seeds)) for (_, l0), (_, seeds) in calls.items()}
    assert sizes == {(17, 2), (5, 1), (10, 1), (20, 1)}


@pytest.mark.parametrize("name", [ADAM, SGD, DECAY, REVISED])
def test_a_step_is_of_the_loss_at_the_last_strength_without_weight_decay(name):
    model = h.Encoder(D, K, seed=1)
    run, E = Trained(BY_NAME[name], 1, model, 0.7), model(X)
    volume = h.log_det_loss(E) if name == REVISED else h.infomax_loss(E)
    expected = 0.7 * h.lse_loss(E) + 2 * volume  # of two minibatches
    loss = CELLS["loss_of_step"](run)
    factor = 2 * 1.7 if name == SGD else 1  # of the loss that is minimised
    assert factor * loss(model, X).item() == pytest.approx(expected.item(), rel=1e-5)
    row = CELLS["measure_directions"](run)
    assert row == measures.cosines(model, loss, X) | measures.decoding(model, X, X)


def test_batch_top_k_has_one_threshold_after_training():
    model = CELLS["BatchTopK"](D, K, seed=0, k=2)
    together = model(X).detach()
    assert (together > 0).sum() == 2 * len(X)  # the largest of a minibatch
    model.fix_threshold(X)
    alone = torch.cat([model(row[None]) for row in X]).detach()
    assert_allclose(alone, together, atol=1e-6)


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

    V, A, x = random(K, D), random(K), random(2, D)
    codes = {"its SAE": (A, V, x[1]), "the paper's model": (torch.zeros(K), V, x[1])}
    axes = checked(plots_benchmark.one_digit(x[0], codes, kinds))
    parts = (A * V.norm(dim=1)).sort(descending=True)[0]
    assert_allclose([a.lines[0].get_xdata()[1] for a in axes[3:8]], parts[:5] / parts[0], rtol=1e-5)
    assert axes[1].get_xlabel() == f"error {(x[1] - x[0]).square().mean():.3f}"
