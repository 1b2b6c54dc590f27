"""lab/tuning.py: searches judge on rows from which nothing is learned; and what they have found."""

import json
from functools import partial

import numpy as np
import pytest
import torch

import helpers as h
from lab import ROOT, language, tuning
from lab.methods import methods

D, K = 6, 5
MEAN = torch.linspace(-1, 1, D).double()
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double()
TINY = {"epochs": 4, "batch_size": 40}
METHODS = methods(0.7)
TUNED = "the paper's loss, tuned"


# --- Searches -----------------------------------------------------------------------------------


def test_a_way_has_what_its_name_says():
    found = tuning.ways({"SGD": [0.03], "momentum .9": [1]}, {True: (1, 2), False: (3,)})
    assert len(found) == 8
    way = found["SGD 0.03, slow start, raw"]
    assert (way.raw, way.slow_start, way.lr, way.settings) == (True, True, 0.03, (1, 2))
    assert way.optimizer is torch.optim.SGD
    way = found["momentum .9 1, centred"]
    assert (way.raw, way.slow_start, way.lr, way.settings) == (False, False, 1, (3,))
    assert way.optimizer.keywords == {"momentum": 0.9}


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("slow_start", [True, False])
def test_ways_are_judged_on_the_last_sixth(float64, raw, slow_start):
    x, lams = torch.cat([X, 0.8 * X[:40].flip(1)]), {True: (0.1, 5.0), False: (0.2, 4.0)}
    tried = tuning.ways({"SGD": [0.03]}, lams, slow_starts=[slow_start])
    tried = {how: way for how, way in tried.items() if way.raw == raw}
    (row,) = tuning.search_ways(tried, x, MEAN, K, seeds=[0, 4], l0s=[1.2, 1.3], **TINY)
    inputs, at = x + MEAN * raw, {1.2: [], 1.3: []}
    schedule = [0.05 if slow_start else 1.0, 1.0, 1.0, 0.1]
    for seed in (0, 4):
        l0s, values = [], []
        for lam in lams[raw]:
            model = h.Encoder(D, K, seed=seed)
            options = {"lr": 0.03, "optimizer": torch.optim.SGD, "schedule": schedule, "seed": seed}
            h.fit(model, lambda m, x: h.published_loss(m(x), lam), inputs[:200], **options, **TINY)  # noqa: B023
            l0s.append(h.l0(model(inputs[200:])))
            decoded = h.with_decoder(model, inputs[:200], h.transpose_decoder)
            values.append(1 - h.variance_explained(decoded, inputs[200:]))
        for l0, found in at.items():
            found.append(1 - np.exp(np.interp(np.log(l0), np.log(l0s), np.log(values))))
            assert l0s[0] < l0 < l0s[1]
    assert row["at"] == {l0: pytest.approx(found, rel=1e-5) for l0, found in at.items()}
    assert row["explained"] == pytest.approx(np.mean([*at.values()]))
    assert [row["how"]] == [*tried] and len(row["l0"]) == len(row["dead"]) == 4


@pytest.mark.filterwarnings("ignore:.*enclose")
def test_the_best_way_is_first_and_one_that_does_not_enclose_an_l0_is_last(float64):
    lams = {True: (0.1, 5.0), False: (0.2, 4.0)}
    tried = tuning.ways({"Adam": [0.01], "SGD": [1e-5, 0.03]}, lams, slow_starts=[False])
    found = tuning.search_ways(tried, X, MEAN, K, seeds=[0], l0s=[1.3], **TINY)
    values = [row["explained"] for row in found]
    known = [value for value in values if value is not None]
    assert 1 < len(known) < 6 and known == sorted(known, reverse=True)
    assert values[len(known) :] == [None] * (6 - len(known))


def test_rates_are_judged_on_the_last_sixth(float64, monkeypatch):
    """It is of another scale. A rate at which training diverges gives NaN."""
    monkeypatch.setattr(tuning, "RATES", (0.002, 0.008, 1e200))
    x = torch.cat([X, X.flip(1), 3 * X[:80].flip(0)])
    chosen = {name: METHODS[name] for name in ("the revised loss", "L1 SAE", "TopK SAE")}
    chosen["TopK SAE"] = chosen["TopK SAE"]._replace(settings=(1, 2, 3))
    with pytest.warns(RuntimeWarning, match="smaller lr"):
        found = tuning.search_rates(chosen, x, K, seeds=(0, 4), **TINY)
    losses = {
        "the revised loss": lambda m, x: h.revised_loss(m(x), m.W, 0.25, 0.7),
        "L1 SAE": partial(h.sae_loss, weight=1.0),
        "TopK SAE": h.sae_loss,
    }
    models = dict.fromkeys(losses, partial(h.SparseAutoencoder, D, K))
    models |= {"the revised loss": partial(h.Encoder, D, K)}
    models |= {"TopK SAE": partial(h.SparseAutoencoder, D, K, k=2)}
    for name, loss in losses.items():
        for lr in (0.002, 0.008):
            values = []
            for seed in (0, 4):
                model = models[name](seed=seed)
                h.fit(model, loss, x[:400], lr=lr, schedule=[1, 1, 1, 0.1], seed=seed, **TINY)
                values += [loss(model, batch).item() / 40 for batch in (x[400:440], x[440:480])]
            assert found[name][lr] == pytest.approx(np.mean(values))
        assert np.isnan(found[name][1e200])


# --- What `make tune` has found -----------------------------------------------------------------


def read(name):
    return json.loads((ROOT / "figures" / f"{name}.json").read_text())


def names(ways):
    return [row["how"] for row in ways]


def how(method):
    """What the search chooses of a method for the paper's loss."""
    return method.loss, method.lr, method.optimizer, method.raw, method.slow_start


def test_all_ways_were_tried_and_the_ten_best_again_at_three_l0s():
    found = read("tuning")
    tried = tuning.ways(tuning.WAYS, tuning.FIRST_LAMBDAS)
    assert sorted(names(found["all ways"])) == sorted(tried)
    best = sorted(found["all ways"], key=lambda row: -(row["explained"] or 0))[:10]
    assert set(names(found["best ways"])) == set(names(best))
    for row in found["best ways"]:
        assert [*row["at"]] == ["6", "10", "16"] and {*map(len, row["at"].values())} == {3}


def test_the_tuned_papers_loss_is_trained_in_the_best_way():
    best = max(read("tuning")["best ways"], key=lambda row: row["explained"] or 0)["how"]
    assert how(METHODS[TUNED]) == how(tuning.ways(tuning.WAYS, tuning.SECOND_LAMBDAS)[best])


def assert_as_good_as_the_best(found, rates, tolerance):
    """Each rate, of those tried: to within a part of its loss."""
    assert set(found) == set(rates)
    told = {}
    for name, pairs in found.items():  # a loss that has diverged is None
        losses = {rate: np.inf if loss is None else loss for rate, loss in pairs}
        best = min(losses.values())
        if losses[rates[name]] != pytest.approx(best, rel=tolerance):
            told[name] = losses
    assert not told


def test_each_rate_is_as_good_as_the_best_of_those_tried():
    rates = {n: method.lr for n, method in METHODS.items() if n not in tuning.NOT_BY_LOSS}
    assert METHODS["L1 SAE, twice its rate"].lr == 2 * rates["L1 SAE"]
    found = read("tuning")["rates"]
    assert {*found} == {*rates}
    for name in ("the revised loss, L1", "the revised loss, saturating"):
        assert rates.pop(name) == rates["the revised loss"]  # it has one rate for all penalties
        found.pop(name)
    assert_as_good_as_the_best(found, rates, tolerance=5e-4)
    assert all(min(dict(found[name])) < lr < max(dict(found[name])) for name, lr in rates.items())


def test_on_the_language_model_the_papers_loss_is_trained_in_the_best_way():
    best = max(read("language_tuning")["ways"], key=lambda row: row["explained"] or 0)["how"]
    chosen = METHODS[TUNED]._replace(**language.TUNED, lr=language.SETTINGS[TUNED][1])
    assert how(chosen) == how(tuning.ways(language.WAYS, language.WAYS_LAMBDAS)[best])


def test_on_the_language_model_each_rate_is_as_good_as_the_best_of_those_tried():
    """Without competition, and with L1, it is the rate of the revised loss."""
    rates = {name: lr for name, (_, lr) in language.SETTINGS.items()}
    by_loss = {name: rates[name] for name in language.BY_LOSS}
    assert_as_good_as_the_best(read("language_tuning")["rates"], by_loss, tolerance=0)
    others = {name: lr for name, lr in rates.items() if name not in language.BY_LOSS}
    variants = "the revised loss, no competition", "the revised loss, L1"
    assert others == {
        **dict.fromkeys(variants, rates["the revised loss"]),
        "the paper's loss": METHODS["the paper's loss"].lr,
        TUNED: rates[TUNED],
    }
