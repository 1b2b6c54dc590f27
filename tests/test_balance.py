"""lab/balance.py: means of inputs against autograd, by hand, and against ridge regression."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge

import helpers as h
from lab import balance, measures

D, K, LAM, KAPPA = 6, 5, 0.3, 0.7
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)).double() + 0.3
MEAN = torch.linspace(-1, 1, D)
close = partial(assert_allclose, rtol=0, atol=1e-9)
both = pytest.mark.parametrize("mean", [None, MEAN], ids=["raw", "mean"])


def encoder(mean=None, n_units=K):
    return h.Encoder(D, n_units, mean=mean, seed=3).double()


@both
@pytest.mark.parametrize(
    "infomax, loss, n", [(h.log_det_loss, h.revised_loss, 200), (None, h.paper_loss, 64)]
)
def test_differences_of_sums_are_the_gradient_of_the_loss(infomax, loss, n, mean):
    """Times -128 / (2 lam N); weight decay has kappa w there. Of R, that of the log-sum-exp."""
    model, x, q = encoder(mean), X[:n], 128 / (2 * LAM * n)
    found = balance.means(model, x, LAM, infomax or balance.infomax_loss)
    of_W, of_b = torch.autograd.grad(loss(model, x, LAM, KAPPA), (model.W, model.b))
    close(found["sum_A"] - found["sum_R"] - KAPPA * model.W.detach(), -q * of_W)
    close(found["m_A"] - found["m_R"], -q * of_b)
    of_W, of_b = torch.autograd.grad(h.lse_loss(model(x)), (model.W, model.b))
    close(found["sum_R"], q * of_W)
    close(found["m_R"], q * of_b)
    rho = found["m_R"] / found["m_A"]
    close(found["rho"], rho)
    close(balance.rho(model, x, LAM, infomax or balance.infomax_loss), np.median(rho))


@both
@pytest.mark.parametrize("s", [1e-3, 0.1])  # the first of them by default
def test_V_is_ridge_regression_and_a_difference_of_means_of_what_the_layer_sees(s, mean):
    options = {} if s == 1e-3 else {"infomax": partial(h.log_det_loss, s=s), "s": s}
    found = balance.means(encoder(mean), X, LAM, **options)
    E = encoder(mean)(X).detach().numpy()
    close(found["V"], Ridge(alpha=s * 199).fit(E, X).coef_.T)
    close(found["V"], found["m_A"][:, None] * (found["x_A"] - found["x_I"]))


def test_means_of_one_unit_and_three_inputs_by_hand():
    """Energies 0, 1 and 2: their mean is 1, their variance 1, and g is -1/2, 0 and 1/2. The unit is
    alone, so its responsibility is 1; and lambda is such that 128 / (2 lambda N) is 1."""
    model, x = h.Encoder(1, 1), torch.tensor([[-4.0], [1.0], [2.0]])
    model.W.data[:], model.b.data[:] = 1, 0
    found = balance.means(model, x, lam=64 / 3, infomax=partial(h.log_det_loss, s=0), s=0)
    expected = {"m_A": 0.5, "sum_A": 1, "x_A": 2, "m_R": 2, "sum_R": 3, "x_R": 1.5, "rho": 4}
    expected |= {"m_I": 0.5, "sum_I": -2, "x_I": -4, "V": 3, "W": 1}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_float32_models_and_inputs_in_chunks_stay_as_they_are_and_means_are_in_double_precision():
    model, x = h.Encoder(D, K, mean=MEAN, seed=3), X.float()
    before = [value.clone() for value in (x, model.W, model.b)]
    found = balance.means(model, x, LAM, chunk=64)
    for a, b in zip(before, (x, model.W, model.b)):
        assert a.equal(b) and a.dtype == b.dtype
    for name, value in balance.means(model.double(), x.double(), LAM).items():
        close(found[name], value)


def test_dead_units_have_no_rho_and_do_not_count():
    model = encoder(n_units=K + 1)
    model.b.data[K] = -100
    found = balance.means(model, X, LAM)["rho"]
    assert found.isfinite().tolist() == K * [True] + [False]
    assert balance.rho(model, X, LAM, h.log_det_loss) == pytest.approx(np.median(found[:K]))
    table = balance.table({("a", LAM): model}, X, X, {"a": h.log_det_loss})
    assert table.rho[0] == pytest.approx(np.median(found[:K])) and table.dead[0] == 1


def test_a_table_has_medians_over_units_of_each_layer():
    models = {("b", LAM): h.Encoder(D, K, mean=MEAN, seed=[4, 3]), ("a", 1.0): encoder()}
    table = balance.table(models, X, X, {"b": h.log_det_loss})
    keys = [("b", LAM, 4), ("b", LAM, 3), ("a", 1, 3)]
    assert [*zip(table.method, table.setting, table.seed)] == keys
    assert table.rho[2] == balance.rho(encoder(), X, 1.0, balance.infomax_loss)
    found = {name: value.numpy() for name, value in balance.means(encoder(MEAN), X, LAM).items()}
    row, decoded = table.iloc[1], measures.decoded(encoder(MEAN), X, X)
    close(row.rho, np.median(found["rho"]), atol=1e-5)
    A, V = found["sum_A"], found["V"]
    for name, step in {"added and V": A, "step and V": A - found["sum_R"]}.items():
        lengths = np.linalg.norm(step, axis=1) * np.linalg.norm(V, axis=1)
        close(row[name], np.median((step * V).sum(1) / lengths), atol=1e-5)
    close(row.ratio, decoded["own"] / decoded["best"], atol=1e-4)
