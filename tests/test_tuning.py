"""lab/tuning.py: searches judge on rows from which nothing is learned; and what they have found."""

import json
from functools import partial

import numpy as np
import pytest
import torch

import helpers as h
from lab import ROOT, language, tuning
from lab.methods import benchmark_methods

D, K = 6, 5
MEAN = torch.linspace(-1, 1, D).double()
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double()
TINY = {"epochs": 4, "batch_size": 40}
METHODS = benchmark_methods(0.7)
TUNED = "the paper's loss, tuned"
SGD = torch.optim.SGD


# --- Searches -----------------------------------------------------------------------------------


def explained_at(l0, lams, inputs, **options):
    """What W^T explains at an L0 of the last 40 inputs, by models that learn from all others."""
    l0s, errors = [], []
    for lam in lams:
        model = h.Encoder(D, K, seed=options["seed"])
        h.fit(model, lambda m, x, lam=lam: h.published_loss(m(x), lam), inputs[:-40], **options)
        l0s.append(h.l0(model(inputs[-40:])))
        sae = h.with_decoder(model, inputs[:-40], h.transpose_decoder)
        errors.append(1 - h.variance_explained(sae, inputs[-40:]))
    assert l0s[0] < l0 < l0s[1]
    return 1 - np.exp(np.interp(np.log(l0), np.log(l0s), np.log(errors)))


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.*enclose")
def test_ways_are_what_their_names_say_and_are_judged_on_the_last_sixth():
    """The best are first, and are tried again with three seeds and other lambdas. A way whose
    models do not enclose the L0 is last."""
    expected = {  # rate, optimiser, factor of the rate in the first epoch, mean that inputs keep
        "SGD 0.03, raw": (0.03, SGD, 1.0, MEAN),
        "SGD 0.03, slow start, raw": (0.03, SGD, 0.05, MEAN),
        "momentum .9 0.004, centred": (0.004, partial(SGD, momentum=0.9), 1.0, 0 * MEAN),
    }
    rates = {"SGD": [1e-5, 0.03], "momentum .9": [0.004]}
    lams = {True: (0.1, 5.0), False: (0.2, 4.0)}  # on raw pixels, and centred
    again = tuning.ways(rates, lams)
    first = tuning.ways(rates, {True: (0.2, 8.0), False: (0.1, 8.0)})
    first = {how: first[how] for how in ("SGD 1e-05, centred", *expected)}
    x, l0s = torch.cat([X, 0.8 * X[:40].flip(1)]), {"first_l0": 1.0, "l0s": [0.9, 1.1]}
    found = tuning.search_twice(first, again, x, MEAN, K, n_best=3, **l0s, **TINY)
    *rest, last = found["all ways"]
    assert (last["how"], last["explained"]) == ("SGD 1e-05, centred", None)
    for rows in (rest, found["best ways"]):
        values = [row["explained"] for row in rows]
        assert values == sorted(values, reverse=True)
        assert {row["how"] for row in rows} == set(expected)
    for row in found["best ways"]:
        lr, optimizer, factor, mean = expected[row["how"]]
        options = {"lr": lr, "optimizer": optimizer, "schedule": [factor, 1.0, 1.0, 0.1]} | TINY
        own = partial(explained_at, lams=lams[bool(mean.any())], inputs=x + mean, **options)
        at = {l0: [own(l0, seed=seed) for seed in (0, 1, 2)] for l0 in (0.9, 1.1)}
        assert row["at"] == {l0: pytest.approx(values, rel=1e-5) for l0, values in at.items()}
        assert row["explained"] == pytest.approx(np.mean([*at.values()]))


@pytest.mark.usefixtures("float64")
def test_rates_are_judged_on_the_last_sixth(monkeypatch):
    """It is of another scale. A rate at which training diverges gives NaN."""
    monkeypatch.setattr(tuning, "RATES", (0.002, 0.008, 1e200))
    x = torch.cat([X, X.flip(1), 3 * X[:80].flip(0)])
    chosen = {name: METHODS[name] for name in ("the revised loss", "L1 SAE", "TopK SAE")}
    chosen["TopK SAE"] = chosen["TopK SAE"]._replace(settings=(1, 2, 3))
    with pytest.warns(RuntimeWarning, match="smaller lr"):
        found = tuning.search_rates(chosen, x, K, seeds=(0, 4), **TINY)
    expected = {  # the model, and the loss at its middle setting
        "the revised loss": (h.Encoder, lambda m, x: h.revised_loss(m(x), m.W, 0.25, 0.7)),
        "L1 SAE": (h.SparseAutoencoder, partial(h.sae_loss, weight=1.0)),
        "TopK SAE": (partial(h.SparseAutoencoder, k=2), h.sae_loss),
    }
    for name, (make, loss) in expected.items():
        for lr in (0.002, 0.008):
            values = []
            for seed in (0, 4):
                model = make(D, K, seed=seed)
                h.fit(model, loss, x[:400], lr=lr, schedule=[1, 1, 1, 0.1], seed=seed, **TINY)
                values += [loss(model, batch).item() / 40 for batch in (x[400:440], x[440:480])]
            assert found[name][lr] == pytest.approx(np.mean(values))
        assert np.isnan(found[name][1e200])


# --- What `make tune` has found -----------------------------------------------------------------


def read(name):
    return json.loads((ROOT / "figures" / f"{name}.json").read_text())


def best(ways):
    return max(ways, key=lambda row: row["explained"] or 0)["how"]


def how(method):
    """What the search chooses of a method for the paper's loss."""
    return method.loss, method.lr, method.optimizer, method.raw, method.slow_start


def test_the_tuned_papers_loss_is_trained_in_the_best_way_on_digits_and_on_the_language_model():
    found, tried = read("tuning"), tuning.ways(tuning.WAYS, tuning.SECOND_LAMBDAS)
    assert {row["how"] for row in found["all ways"]} == set(tried)
    assert how(METHODS[TUNED]) == how(tried[best(found["best ways"])])
    found, tried = read("language_tuning"), tuning.ways(language.WAYS, language.WAYS_LAMBDAS)
    chosen = METHODS[TUNED]._replace(lr=language.SETTINGS[TUNED][1])
    assert how(chosen) == how(tried[best(found["best ways"])])


def assert_as_good_as_the_best(found, rates, tolerance):
    """The rate of each method, of those tried: to within a part of its loss."""
    assert set(found) == set(rates)
    for name, pairs in found.items():  # a loss that has diverged is None
        losses = {rate: np.inf if loss is None else loss for rate, loss in pairs}
        assert losses[rates[name]] == pytest.approx(min(losses.values()), rel=tolerance), name


def test_each_rate_is_as_good_as_the_best_of_those_tried():
    rates = {n: method.lr for n, method in METHODS.items() if n not in tuning.NOT_BY_LOSS}
    assert METHODS["L1 SAE, twice its rate"].lr == 2 * rates["L1 SAE"]
    found = read("tuning")["rates"]
    for name in ("the revised loss, L1", "the revised loss, saturating"):
        found.pop(name)
        assert rates.pop(name) == rates["the revised loss"]  # it has one rate for all penalties
    assert_as_good_as_the_best(found, rates, tolerance=5e-4)
    assert all(min(dict(found[name])) < lr < max(dict(found[name])) for name, lr in rates.items())


def test_on_the_language_model_each_rate_is_as_good_as_the_best_of_those_tried():
    """Without competition, and with L1, it is the rate of the revised loss."""
    rates = {name: lr for name, (_, lr) in language.SETTINGS.items()}
    by_loss = {name: rates[name] for name in language.BY_LOSS}
    assert_as_good_as_the_best(read("language_tuning")["rates"], by_loss, tolerance=0)
    for name in ("the revised loss, no competition", "the revised loss, L1"):
        assert rates[name] == rates["the revised loss"]
