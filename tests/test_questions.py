"""questions/common.py against plain loops, NumPy and scikit-learn, and the rule of tune.py."""

import math
from functools import partial
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score

import common
import helpers as h
import tune

pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(actual, expected, rtol=1e-9, atol=1e-9):
    pair = (v.detach() if torch.is_tensor(v) else v for v in (actual, expected))
    np.testing.assert_allclose(*pair, rtol=rtol, atol=atol)


# --- Competition ----------------------------------------------------------------------------------


def test_without_competition_all_inputs_have_one_denominator():
    E = (3 * normal(2, 7, 4)).requires_grad_()
    found = common.pooled_lse_loss(E)
    Z = np.array([[sum(math.exp(-e) for e in row) for row in model] for model in E.tolist()])
    close(found, -7 * np.log(Z.mean(1)))
    found.sum().backward()
    close(E.grad, np.exp(-E.detach().numpy()) / Z.mean(1).reshape(2, 1, 1))
    assert (h.lse_loss(E) > found).all()  # Jensen's inequality
    same = torch.stack([E[0, 0].roll(i) for i in range(4)])
    close(h.lse_loss(same), common.pooled_lse_loss(same))


def test_units_are_matched_by_the_best_permutation():
    A, B = normal(50, 4).relu(), normal(50, 4, seed=1).relu()
    R = np.corrcoef(A.T, B.T)[:4, 4:]
    best = max(np.mean([R[i, j] for i, j in enumerate(order)]) for order in permutations(range(4)))
    assert common.matched_correlation(A, B) == pytest.approx(best)
    assert common.matched_correlation(A, A[:, [2, 0, 3, 1]] * torch.arange(1, 5)) == pytest.approx(
        1
    )


# --- Methods --------------------------------------------------------------------------------------


def loss_by_loops(name, strength, x, W, b, V, c, mean):
    """That of one model, of method `name`."""
    E = (x - mean) @ W.T + b
    A = np.where(E > 0, E, 0)
    if name == "layer":
        Z = np.exp(-A).sum(1)
        variance, R = A.var(0, ddof=1), np.corrcoef(A.T)
        energy = -strength * np.log(Z).sum() - np.log(variance + 1e-6).sum()
        return energy + np.square(R - np.eye(len(R))).sum() + 0.4 * np.square(W).sum()
    if name == "new_top_k_sae":
        for row in A:
            row[np.argsort(row)[: -int(strength)]] = 0
    error = np.square(A @ V + c - x).sum()
    norms = {"new_l1_sae": np.sqrt(np.square(V).sum(1)), "new_tied_sae": np.ones(len(V))}
    return error + strength * (A * norms.get(name, 0)).sum()


@pytest.mark.parametrize("name", ["layer", "new_tied_sae", "new_l1_sae", "new_top_k_sae"])
def test_losses_of_a_stack_are_those_of_loops_at_each_strength(name):
    x, strengths = normal(30, 6) + 2, [2.0, 3.0, 1.0]
    method = partial(common.new_layer, decay=0.4) if name == "layer" else getattr(common, name)
    model, losses = method(x, 5, torch.tensor(strengths), [0, 1, 2])
    model.b.data += 2 if name == "layer" else 0.5  # no unit is dead
    for i, strength in enumerate(strengths):
        V, c = (model.W, model.W) if name == "layer" else (model.V, model.c)
        parameters = [p[i].detach().numpy() for p in (model.W, model.b, V, c)]
        mean = 0 if name == "layer" else x.numpy().mean(0)
        expected = loss_by_loops(name, strength, x.numpy(), *parameters, mean)
        assert losses(model, x)[i].item() == pytest.approx(expected)
        assert (V is model.W) == (name in ("layer", "new_tied_sae"))


def test_top_k_keeps_k_positive_activations_of_each_input():
    x = normal(50, 6)
    model, _ = common.new_top_k_sae(x, 8, torch.tensor([1.0, 3.0, 8.0]), [0, 0, 0])
    E = h.SparseAutoencoder(6, 8, mean=x.mean(0))(x)[0]
    for A, k in zip(model(x), (1, 3, 8)):
        assert ((A > 0).sum(1) == (E > 0).sum(1).clamp(max=k)).all()
        close(A, E.where(A > 0, 0))
        close(A.amax(1), E.amax(1))


def test_principal_components_are_cut_at_so_many_active_units():
    x = normal(500, 6) @ normal(6, 6, seed=1) + 3
    model = common.thresholded_pca(x, 8, [2, 3])
    close(h.l0(model(x)), [2, 3], 0.01)
    components = torch.linalg.svd(x - x.mean(0)).Vh[:4]
    for W in model.W.detach():
        close(W[:4] @ W[:4].T, np.eye(4))
        close((W[:4].flip(0) @ components.T).abs(), np.eye(4))
        close(W[4:], -W[:4])
    scores = (x - x.mean(0)) @ model.W[0].T
    for A in model(x):  # what is kept is kept whole, and is larger than what is not
        close(A, scores.where(A > 0, 0))
        assert scores[A > 0].min() > scores[A == 0].max() > 0


@pytest.mark.parametrize("method", [common.new_layer, common.new_l1_sae, common.new_top_k_sae])
def test_each_strength_is_trained_with_each_seed(method):
    x, options = normal(64, 6), {"lr": 0.01, "epochs": 4, "batch_size": 16}
    stack = common.train_stack(method, x, 5, [1.0, 3.0], [7, 8, 9], **options)
    assert not any(p.requires_grad for p in stack.parameters())
    for i, (strength, seed) in enumerate([(s, seed) for s in (1.0, 3.0) for seed in (7, 8, 9)]):
        alone = common.train_stack(method, x, 5, [strength], [seed], **options)
        close(stack.W[i], alone.W[0], 1e-6)


def test_the_rate_is_a_tenth_in_the_last_quarter():
    """Of a constant gradient, each step of Adam is as long as the rate. Two steps in an epoch."""

    def descent(x, n_units, strengths, seeds):
        return h.Encoder(6, n_units, seeds), lambda model, x: model.W.sum((1, 2))

    model = common.train_stack(
        descent, normal(40, 6), 5, [1.0], [0], lr=0.01, epochs=8, batch_size=20
    )
    close(h.Encoder(6, 5).W - model.W, torch.full((1, 5, 6), 0.01 * 2 * (6 + 0.1 * 2)), 1e-5)


# --- Decoders -------------------------------------------------------------------------------------


@pytest.fixture
def stack():
    """Of two SAEs, with inputs to fit decoders to, and others; unit 0 of the second is dead."""
    x, x_test = normal(200, 6) + 5, 2 * normal(90, 6, seed=1) + 5.5
    model = h.SparseAutoencoder(6, 4, [0, 1], mean=x.mean(0)).requires_grad_(False)
    model.b[1, 0] = -100
    return model, x, x_test


def test_decoders_are_least_squares(stack):
    model, x, x_test = stack
    A, A_test = codes = model(x), model(x_test)
    for i in range(2):
        own, best = common.fit_own_decoder(model, i, A[i], x), common.fit_best_decoder(A[i], x)
        columns, columns_test = (np.pad(a[i], ((0, 0), (0, 1)), constant_values=1) for a in codes)
        solution, *_ = np.linalg.lstsq(columns, x.numpy(), rcond=None)
        close(best(A_test[i]), columns_test @ solution, 1e-3, 1e-3)  # a small ridge
        decoded = model.decode(A)[i]
        C = decoded - decoded.mean(0)
        gain, *_ = np.linalg.lstsq(C.reshape(-1, 1), (x - x.mean(0)).flatten(), rcond=None)
        expected = (model.decode(A_test)[i] - decoded.mean(0)) * gain[0] + x.mean(0)
        close(own(A_test[i]), expected)
        assert common.variance_explained(best(A[i]), x) > common.variance_explained(own(A[i]), x)
    nothing = torch.zeros(200, 4)
    close(common.fit_best_decoder(nothing, x)(nothing), x.mean(0).expand(200, 6))
    for n_inputs in (9, 10):  # on which the only unit is active
        rare = torch.zeros(200, 1)
        rare[:n_inputs] = 1
        decoded = common.fit_best_decoder(rare, x)(rare)
        assert decoded.isclose(x.mean(0), atol=1e-5).all() == (n_inputs < 10)


def test_what_is_measured_of_each_model(stack):
    model, x, x_test = stack
    table = common.measure_stack(model, x, x_test)
    assert len(table) == 2 and table["dead units"].tolist() == [0, 1]
    for i, row in table.iterrows():
        A, A_test = model(x)[i], model(x_test)[i]
        own, best = common.fit_own_decoder(model, i, A, x), common.fit_best_decoder(A, x)
        assert row["L0"] == pytest.approx(np.mean([(code > 0).sum() for code in A_test.numpy()]))
        for name, decode in {"own decoder": own, "best decoder": best}.items():
            share = r2_score(x_test, decode(A_test), multioutput="variance_weighted")
            assert row[name] == pytest.approx(100 * share)


# --- Learning rates -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")  # such as that of log(0)
def test_between_strengths_values_are_interpolated_in_the_logarithm():
    rows = pd.DataFrame({"L0": [40, 0, 10, 20], "explained": [50, -999, 10, 30]})
    for n_active, expected in {10: 10, 20 * 2**0.5: 40, 20 / 2**0.25: 25, 40: 50}.items():
        assert common.interpolate_at_l0(rows, "explained", n_active) == pytest.approx(expected)
    for n_active in (5, 50):
        assert math.isnan(common.interpolate_at_l0(rows, "explained", n_active))
    assert math.isnan(common.interpolate_at_l0(rows[rows["L0"] == 0], "explained", 10))


def test_a_score_is_the_mean_over_seeds_at_so_many_active_units():
    """Scores are linear in the logarithm of L0, with a slope for each seed."""
    runs = [
        (method, lr, seed, L0, base + 100 * lr + 10 * seed * math.log(L0))
        for method, base in (("b", 5), ("a", 0))
        for lr in (0.1, 0.2)
        for seed in (1, 2, 6)
        for L0 in (4 + seed, 16 + seed)
    ]
    table = pd.DataFrame(runs, columns=["method", "lr", "seed", "L0", "own decoder"])
    scores = common.score_rates(table, 12)
    for method, base in (("b", 5), ("a", 0)):
        expected = base + 100 * np.array([0.1, 0.2]) + 30 * math.log(12)
        close(scores.loc[method, [0.1, 0.2]], expected)
    without = table.query("not (seed == 2 and lr == .1 and L0 > 12)")
    assert common.score_rates(without, 12).isna().sum(axis=1).tolist() == [1, 1]


def test_a_search_has_a_row_for_each_method_rate_strength_and_seed():
    x, held_out = normal(64, 6), normal(30, 6, seed=1)
    options = {"n_units": 5, "epochs": 1, "batch_size": 16}
    methods = {"layer": (common.new_layer, [1.0, 2.0]), "L1": (common.new_l1_sae, [0.5])}
    table = common.sweep_rates(methods, [0.01, 0.1], x, held_out, seeds=[3, 4], **options)
    assert len(table) == 2 * (2 + 1) * 2
    for _, row in table.iterrows():
        method, strength, seed = methods[row["method"]][0], row["strength"], row["seed"]
        model = common.train_stack(
            method, x, strengths=[strength], seeds=[seed], lr=row["lr"], **options
        )
        expected = common.measure_stack(model, x, held_out).iloc[0]
        close(row[[*expected.index]].astype(float), expected, 1e-6)


def test_the_best_rate_on_held_out_digits_is_taken(monkeypatch, tmp_path, capsys):
    digits, seen = torch.arange(60_000.0).unsqueeze(1), []

    def search(methods, rates, x, x_held_out, n_units, seeds, epochs):
        assert torch.equal(x, digits[:50_000]) and torch.equal(x_held_out, digits[50_000:])
        seen.append(([*methods], rates, epochs))
        rows = []
        for (name, (_, strengths)), lr, seed in product(methods.items(), rates, seeds):
            explained = 40 - abs(math.log(lr / 0.004)) + name.endswith("decay 0.8")
            for strength, l0 in zip(strengths, (30, 14, 10, 8)):
                rows.append((name, epochs, lr, strength, seed, l0, explained))
        columns = ["method", "epochs", "lr", "strength", "seed", "L0", "own decoder"]
        return pd.DataFrame(rows, columns=columns)

    monkeypatch.setattr(tune, "sweep_rates", search)
    monkeypatch.setattr(h, "load_images", lambda: [digits])
    monkeypatch.setattr("sys.argv", ["tune.py", "--figures", str(tmp_path)])
    tune.main()
    assert seen == [
        ([*tune.METHODS], tune.RATES, 12),
        (["layer, decay 0.8"], [0.004], 100),
        (["tied SAE"], [0.004], 100),
    ]
    assert pd.read_csv(tmp_path / "tuning.csv")["epochs"].value_counts().to_dict()[100] == 16
    assert f"chosen: {dict.fromkeys(tune.METHODS, 0.004)}" in capsys.readouterr().out
