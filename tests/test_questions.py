"""What questions/common.py computes, and that constants are those that the search chose."""

import itertools
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

import common
import helpers as h
import tune

RNG = torch.Generator().manual_seed(0)
x = torch.rand(400, 6, generator=RNG) + 3


def test_losses_are_their_formulas():
    sae, k = h.SparseAutoencoder(6, 9), common.TopKSAE(6, 9, 0, 3)
    A, W = sae(x), sae.weight
    error = (A @ sae.V + sae.c - x).square().sum()
    norms = sae.V.square().sum(1).sqrt()
    tied = common.new_sae(6, 9, 0, 0.5, tied=True)
    B = tied(x)
    E = common.new_layer(6, 9, 0, 2.0)(x)
    expected = {
        common.l1_sae_loss(sae, x, 0.5): error + 0.5 * (A * norms).sum(),
        common.tied_sae_loss(tied, x, 0.5): (B @ tied.weight - x).square().sum() + 0.5 * B.sum(),
        common.layer_loss(h.Encoder(6, 9), x, 2.0, decay=0.3): (
            2 * h.lse_loss(E)
            + h.variance_loss(E)
            + h.decorrelation_loss(E)
            + 0.3 * W.square().sum()
        ),
        common.top_k_sae_loss(k, x, 3): (k(x) @ k.V + k.c - x).square().sum(),
    }
    for found, value in expected.items():
        assert found.item() == pytest.approx(value.item(), rel=1e-5)


def test_a_top_k_sae_keeps_the_largest_activations():
    sae, plain = common.TopKSAE(6, 9, 0, 2), h.SparseAutoencoder(6, 9)
    kept, A = sae(x).detach(), plain(x).detach()
    for row, of_all in zip(kept.numpy(), A.numpy()):
        expected = np.where(of_all >= np.sort(of_all)[-2], of_all, 0)
        np.testing.assert_array_equal(row, expected)


def test_models_train_at_a_rate_that_falls_to_a_tenth():
    found = common.train(common.TopKSAE, common.top_k_sae_loss, x, 9, [2, 3], [4, 5], 0.01, 5, 40)
    assert [*found] == [(2, 4), (2, 5), (3, 4), (3, 5)]
    for (k, seed), model in found.items():
        alone, adam = common.TopKSAE(6, 9, seed, k), None
        adam = torch.optim.Adam(alone.parameters(), lr=0.01)
        order = torch.Generator().manual_seed(0)
        for epoch in range(5):
            adam.param_groups[0]["lr"] = 0.01 if epoch < 3 else 0.001
            for rows in torch.randperm(400, generator=order).view(10, 40):
                adam.zero_grad()
                common.top_k_sae_loss(alone, x[rows], k).backward()
                adam.step()
        torch.testing.assert_close(model.weight, alone.weight, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_decoders_are_least_squares():
    model, x_test = h.Encoder(6, 9, seed=2), torch.rand(80, 6, generator=RNG) + 3
    model.bias -= 3 * model.weight.sum(1)
    model.weight[4], model.bias[4] = 0, -1  # dead
    A, A_test = model(x).double().numpy(), model(x_test).double().numpy()
    used = (A > 0).sum(0) >= 10
    assert used.sum() < 9
    columns, columns_test = (np.c_[a[:, used], np.ones(len(a))] for a in (A, A_test))
    V = np.linalg.lstsq(columns, x.double().numpy(), rcond=None)[0]
    best = ((columns_test @ V - x_test.numpy()) ** 2).mean()
    own = h.fitted_mse(model.decode(model(x)), x, model.decode(model(x_test)), x_test)
    variance = float(x_test.var(0, correction=0).mean())
    found = common.measure(model, x, x_test)
    assert found["best decoder"] == pytest.approx(100 * (1 - best / variance), abs=0.05)
    assert found["own decoder"] == pytest.approx(100 * (1 - own / variance), abs=0.01)
    assert found["L0"] == h.l0(model(x_test)) and found["dead units"] == (A_test == 0).all(0).sum()


def test_interpolation_is_by_the_logarithm_and_never_beyond():
    rows = pd.DataFrame({"L0": [16.0, 4, 0], "own decoder": [60.0, 40, -1]})
    assert common.interpolate(rows, "own decoder", 8) == pytest.approx(50)
    assert np.isnan(common.interpolate(rows, "own decoder", 17))
    assert np.isnan(common.interpolate(rows, "own decoder", 3))
    assert np.isnan(common.interpolate(rows[2:], "own decoder", 3))


@pytest.mark.parametrize("name", ["the paper's layer", "layer, decay 0.8", "TopK SAE"])
def test_the_search_trains_on_digits_less_their_mean_and_measures_held_out_ones(name, monkeypatch):
    digits = torch.rand(60_000, 6, generator=RNG) + 3
    monkeypatch.setattr(h, "load_images", lambda: (digits,))
    found = tune.search(name, [0.004], [3], [2], epochs=1).iloc[0]
    x = digits - (0 if name == "the paper's layer" else digits[:50_000].mean(0))
    new, loss, _ = tune.METHODS[name]
    models = common.train(new, loss, x[:50_000], 64, [3], [2], 0.004, 1)
    expected = common.measure(models[3, 2], x[:20_000], x[50_000:])
    assert found[[*expected]].to_dict() == pytest.approx(expected, rel=1e-3)
    if "decay" in name:
        losses = [f(models[3, 2], x[:9], 3) for f in (loss, partial(common.layer_loss, decay=0.8))]
        assert losses[0] == losses[1]


def test_the_best_rate_and_the_strength_with_17_active_units_are_chosen(tmp_path, monkeypatch):
    def search(name, rates, strengths, seeds, epochs):
        """As if the middle strength had 17 active units, and a rate of .002 or .016 were best."""
        best = 0.002 if name == "tied SAE" else 0.016
        quality = 60 + (name == "layer, decay 0.8")
        rows = [
            {
                "lr": lr,
                "strength": s,
                "seed": seed,
                "L0": 17 * np.median(strengths) / s,
                "own decoder": quality - (lr != best),
            }
            for lr, s, seed in itertools.product(rates, strengths, seeds)
        ]
        return pd.DataFrame(rows).assign(method=name, epochs=epochs)

    monkeypatch.setattr(tune, "search", search)
    monkeypatch.setattr(
        "sys.argv", f"tune.py --epochs 3 7 --seeds 5 6 --figures {tmp_path}".split()
    )
    tune.main()
    table = pd.read_csv(tmp_path / "tuning.csv")
    assert set(table["seed"]) == {5, 6} and set(table["method"]) == set(tune.METHODS)
    few, many = table[table["epochs"] == 3], table[table["epochs"] == 7]
    assert set(few["lr"]) == set(tune.RATES)
    chosen = many.groupby("method")["lr"].unique().map(list).to_dict()
    assert chosen == {"layer, decay 0.8": [0.016], "tied SAE": [0.002]}


def test_the_record_of_the_search_has_its_settings():
    table = pd.read_csv(ROOT / "figures/tuning.csv").query("epochs == 12")
    settings = {name: (tune.RATES, strengths) for name, (_, _, strengths) in tune.METHODS.items()}
    assert settings == {
        name: (sorted(set(rows["lr"])), sorted(set(rows["strength"])))
        for name, rows in table.groupby("method")
    }


def test_constants_are_those_that_the_search_chose():
    search = pd.read_csv(ROOT / "figures/tuning.csv")
    few, many = search[search["epochs"] == 12], search[search["epochs"] == 100]
    rates = common.score_rates(few, tune.ACTIVE)
    chosen = rates.idxmax(axis=1)
    layer = rates.max(axis=1).filter(like="layer").idxmax()
    decay = layer.removeprefix("layer, decay ")
    strength = {
        name: f"{common.interpolate(rows, 'strength', tune.ACTIVE):.3g}"
        for name, rows in many.groupby("method")
    }
    benchmark, curves = (
        (ROOT / path).read_text("utf-8")
        for path in ("notebooks/3_benchmark.ipynb", "questions/decoder.ipynb")
    )
    assert f"lse={strength[layer]}) + {decay} *" in benchmark
    assert f"+ {strength['tied SAE']} * A.sum()" in benchmark
    assert f"tuned_layer_loss, {chosen[layer]})" in benchmark
    assert f"tied_sae_loss, {chosen['tied SAE']})" in benchmark
    assert f"decay={decay})" in curves
    for name in ("the paper's layer", "layer, centred", "tied SAE", "L1 SAE", "TopK SAE"):
        assert re.search(rf'\\"{name}\\": .* {chosen[name]}, (mean|0)\)', curves), name
