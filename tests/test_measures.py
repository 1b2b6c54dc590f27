"""lab/measures.py against scikit-learn, brute force, and numbers made by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import helpers as h
from lab import measures

D, K = 6, 5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Of another scale and other correlations, so that any other pairing of them gives other numbers
TRAIN, TEST = normal(300, D), 0.7 * normal(200, D, seed=1) @ normal(D, D, seed=2) + 0.4
Y_TRAIN, Y_TEST = (TRAIN[:, :3].argmax(1), TEST[:, :3].argmax(1))
MODEL, SAE = h.Encoder(D, K, mean=torch.ones(D), seed=1), h.SparseAutoencoder(D, K, seed=1)


@pytest.mark.parametrize("model, size", [(MODEL, 35), (SAE, 71)])
def test_the_benchmark_fits_on_training_rows_and_judges_on_test_inputs(model, size, monkeypatch):
    monkeypatch.setattr(measures, "N_FIT_ROWS", 250)
    row = measures.benchmark_scores(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
    A, A_test = model(TRAIN).detach(), model(TEST).detach()
    decoders = {"explained": h.with_own_decoder, "best explained": h.with_best_decoder}
    for column, with_decoder in decoders.items():
        decoded = with_decoder(model, TRAIN[:250])
        assert row[column] == 100 * h.variance_explained(decoded, TEST)
    assert row["parameters"] == size and row["purity"] == measures.purity(A_test, Y_TEST)
    assert row["active"] == h.l0(A_test) and row["dead"] == 0
    A, A_test = ((part - A.mean(0)) / A.std(0) for part in (A, A_test))
    right = LogisticRegression(max_iter=1000, tol=1e-8).fit(A, Y_TRAIN).score(A_test, Y_TEST)
    assert row["classifier"] == pytest.approx(100 * right, abs=0.51)  # but for one of 200 inputs


def test_the_ablation_is_measured_on_test_inputs():
    row = measures.ablation_scores(MODEL, TRAIN, Y_TRAIN, TEST, Y_TEST)
    A, A_test = MODEL(TRAIN).detach(), MODEL(TEST).detach()
    expected = measures.energy_statistics(A_test) | measures.spread_of_Z(A_test)
    accuracy = measures.classifier_accuracy(A, Y_TRAIN, A_test, Y_TEST)
    assert row == expected | {"classifier": accuracy}


def test_scores_are_compared_with_those_of_pixels_and_of_the_mean_of_training_inputs():
    found = measures.reference_scores(TRAIN, Y_TRAIN, TEST, Y_TEST)
    assert found["pixels"] == measures.classifier_accuracy(TRAIN, Y_TRAIN, TEST, Y_TEST)
    mean = TRAIN.mean(0) / TRAIN.mean(0).norm()
    errors = [(row.norm() * mean - row).square().mean() for row in TEST]
    assert found["mean image"] == pytest.approx(sum(errors).item() / 200)


def test_errors_are_of_outputs_that_have_the_norm_of_their_inputs():
    for model, decoder in ((MODEL, MODEL.W), (SAE, SAE.V)):
        x_hat = (model(TEST) @ decoder).detach()
        errors = [(row * x.norm() / row.norm() - x).square().mean() for row, x in zip(x_hat, TEST)]
        expected = pytest.approx(sum(errors).item() / 200)
        assert measures.norm_matched_error(x_hat, TEST) == expected
        row = measures.benchmark_scores(model, TRAIN, Y_TRAIN, TEST, Y_TEST)
        assert row["norm-matched error"] == expected


def test_other_decoder_rows_are_those_that_their_names_say():
    A, x = MODEL(TRAIN).detach().double().numpy(), TRAIN.double().numpy()
    W = MODEL.W.detach().double().numpy()
    covariance, variance = np.cov(A.T, x.T)[:K, K:], A.var(0)[:, None]
    rows = {
        "W_j": W,
        "W_j / Var(E_j)": W / variance,
        "W_j Cov(x) / Var(E_j)": W @ np.cov(x.T) / variance,
        "Cov(E_j, x) / Var(E_j)": covariance / variance,
        "W_j, damped": W * x.std(0),
    }
    measured = measures.explained_by_decoder_rows(MODEL, TRAIN, TEST)
    for name, V in rows.items():
        decoded = h.with_own_decoder(MODEL, TRAIN, torch.tensor(V))
        assert measured[name] == pytest.approx(100 * h.variance_explained(decoded, TEST), abs=1e-3)
    best = h.with_best_decoder(MODEL, TRAIN)
    assert measured["the best"] == 100 * h.variance_explained(best, TEST)
    assert measured["W_j, damped at random"] != pytest.approx(measured["W_j, damped"])


def test_a_unit_that_is_dead_on_the_fitting_rows_has_no_decoder_row():
    """Though it is active on one of the test rows."""
    model, odd = h.Encoder(TRAIN.shape[1], 3, seed=1), TEST[:1] + 1000
    model.W.data[0], model.b.data[0] = 1.0, -float(TRAIN.sum(1).max()) - 1
    assert float(model(odd)[0, 0].detach()) > 0 and not model(TRAIN)[:, 0].any()
    shares = measures.explained_by_decoder_rows(model, TRAIN, torch.cat([TEST[1:], odd]))
    found = [shares[name] for name in ("W_j / Var(E_j)", "W_j Cov(x) / Var(E_j)")]
    assert all(-1000 < share <= 100 for share in found)


def test_purity_weights_classes_equally_and_leaves_out_dead_units():
    y, shares = torch.tensor([0] * 40 + [1] * 15 + [2] * 5), []
    A = torch.relu(normal(60, 4)) * torch.tensor([1, 3, 0, 0.1])
    A[:, 3] *= y == 2
    for unit in (0, 1, 3):
        means = [np.mean([a for a, c in zip(A[:, unit].tolist(), y) if c == k]) for k in range(3)]
        shares.append(max(means) / sum(means))
    assert shares[2] == 1 and measures.purity(A, y) == pytest.approx(np.mean(shares))


def test_units_are_paired_by_the_best_of_all_pairings():
    A, B = normal(50, 4).double(), normal(50, 4, seed=1).double()
    B[:, 2], A[:, 3] = 3 * A[:, 0] + 0.1 * B[:, 2], 0
    R = np.zeros((4, 4))
    R[:3] = np.corrcoef(A[:, :3].T, B.T)[:3, 3:]
    best = max(np.mean([R[i, j] for i, j in enumerate(p)]) for p in permutations(range(4)))
    assert measures.unit_agreement(A, B) == pytest.approx(best)


def test_energies_and_convergence_are_measured_as_the_paper_does():
    E = torch.relu(normal(400, 4)) * torch.tensor([0.3, 0, 0.1, 1])  # variances .03, 0, .003, .3
    living = np.corrcoef(E[:, [0, 2, 3]].T.double()) - np.eye(3)
    p = torch.softmax(-E.double(), 1)
    values = {"redundancy": np.square(living).sum(), "active": h.l0(E)}
    values["entropy"] = -(p * p.log()).sum(1).mean().item()
    row = {"dead": 1, "low variance": 2} | values
    assert measures.energy_statistics(E) == pytest.approx(row, rel=1e-5)
    assert math.isnan(measures.redundancy(E[:, 1:2])) and math.isnan(measures.redundancy(0 * E))
    changes = np.array([9, 0.5, 0.5, 0.5, 0.5, -9, 0.9, -0.9, 0.9, 0, 0.1])
    losses = torch.tensor(np.cumsum([0, *changes]))
    assert measures.convergence_epoch(losses) == 7  # the first of five, counted from 0
    assert math.isnan(measures.convergence_epoch(losses[:7]))


def test_the_fall_of_a_loss_is_that_of_its_last_epochs_for_each_living_unit():
    layer = h.Encoder(D, K, seed=1)
    layer.b.data[0] = -99  # dead
    layer.W.data[1] *= 9
    t = torch.arange(1.0, 41)
    losses = -8 * torch.log(t)  # which falls by 8 / t in an epoch, nearly
    losses[:15] = 0
    found = measures.convergence_statistics(layer, losses, TEST)
    assert found["living units"] == 4 and found["slope"] == pytest.approx(2, rel=0.03)
    sizes = [np.hypot(w.norm().item(), b.item()) for w, b in zip(layer.W.data, layer.b.data)][1:]
    ratio = found["largest over smallest unit"]
    assert ratio == pytest.approx(max(sizes) / min(sizes)) and max(sizes) == sizes[0]
    assert found["epoch"] == measures.convergence_epoch(losses)
    layer.b.data[:] = -99
    assert math.isinf(measures.convergence_statistics(layer, losses, TEST)["slope"])


def test_the_spread_of_Z_is_that_of_independent_units_if_they_are():
    active = torch.rand(100_000, 6, generator=torch.Generator().manual_seed(0))
    E = 99.0 * (active < torch.linspace(0.1, 0.6, 6))
    found = measures.spread_of_Z(E)
    assert found["spread of Z"] == pytest.approx(28, rel=0.02)
    assert found["if independent"] == pytest.approx(found["spread of Z"], rel=0.02)


def test_exponential_energies_have_a_deviation_like_their_mean():
    rng = torch.Generator().manual_seed(0)
    E = torch.empty(100_000, 3).exponential_(0.2, generator=rng)
    E[::2], E[:, 2] = 0, 0  # half of the time; and one unit is dead
    assert measures.shape_of_energies(E[:, :2]) == pytest.approx(1, abs=0.02)
    assert measures.shape_of_energies(E) == pytest.approx(1, abs=0.02)
    uniform = torch.rand(100_000, 3, generator=rng)
    assert measures.shape_of_energies(uniform) == pytest.approx(3**-0.5, abs=0.02)


def test_forces_are_gradients_by_the_bias_times_the_length_of_weights():
    model = h.Encoder(D, K, seed=1)
    found = measures.forces_on_boundaries(model, TRAIN, batch_size=100)
    terms = {"log-sum-exp": h.lse_loss, "decorrelation": h.decorrelation_loss}
    for name, term in (terms | {"variance": h.variance_loss}).items():
        b = model.b.detach().requires_grad_()
        parts = [term(torch.relu(part @ model.W.detach().T + b)) for part in TRAIN.split(100)]
        (gradient,) = torch.autograd.grad(sum(parts) / 3, b)
        expected = (gradient * model.W.detach().norm(dim=1)).median()
        assert found[name] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    "n_units, batch_size, weight", [(64, 128, 1), (16, 128, 4), (128, 32, 0.5)]
)
def test_at_the_predicted_share_price_and_pay_are_equal(n_units, batch_size, weight):
    p = measures.predicted_share_active(n_units, batch_size, weight) / 100
    assert batch_size / (n_units * (1 - p)) == pytest.approx(weight * (1 / p - 1 / (2 - p)))
    assert measures.predicted_share_active(64, 128) == pytest.approx(100 * (1 - 2**-0.5))


def test_each_is_measured_under_its_name_and_seed():
    models = {("a", 0): 1, ("a", 1): 2, ("b", 0): 3}
    table = measures.measure_each(models, lambda model: {"double": 2 * model}, "title")
    assert table.to_dict("list") == {
        "method": ["a", "a", "b"],
        "seed": [0, 1, 0],
        "double": [2, 4, 6],
    }
