"""lab/units.py against pandas, scikit-learn, and by hand."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

import helpers as h
from lab import units
from lab.training import side_by_side

D, K = 6, 5
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0)) + 0.3


def test_agreement_and_pairs():
    models = {("a", 1, s): h.Encoder(D, K, seed=s) for s in range(3)}
    models |= {("a", 2, 0): h.Encoder(D, K), ("b", 1, 0): h.SparseAutoencoder(D, K)}
    one, other, third, *_ = models.values()
    other.b.data[2] = -100  # constant: correlations of 0
    a, b = (m.encode(X).T.detach().numpy() for m in (one, other))
    correlations = pd.DataFrame(np.vstack([a, b]).T).corr().fillna(0).to_numpy()[:K, K:]
    expected = max(correlations[range(K), list(p)].mean() for p in permutations(range(K)))
    table = units.pairs(models, X)
    compared = {("a", 1, "0, 1"), ("a", 1, "0, 2"), ("a", 1, "1, 2")}
    assert set(zip(table.method, table.setting, table.seed)) == compared
    l0 = ((a > 0).sum() * (b > 0).sum()) ** 0.5 / 200
    assert_allclose(table.iloc[0, 3:].astype(float), [l0, expected], rtol=1e-5)
    for p, q in zip(third.parameters(), one.parameters()):
        p.data = q.data[[3, 1, 4, 0, 2]]
    assert units.agreement(one, third, X) == pytest.approx(1)


def test_purity_and_templates():
    A, y = torch.relu(X), (torch.arange(200) % 7).clamp_max(3)
    A[:, 2] = 0  # dead: does not count
    means = pd.DataFrame(A.double()).groupby(y.numpy()).mean().drop(columns=2)
    assert units.purity(A, y) == pytest.approx((means.max() / means.sum()).mean())
    model = units.templates(10 * X[:K], X, l0=1.3)
    assert h.l0(model.encode(X)) == pytest.approx(1.3, abs=0.011) and len(model.b.unique()) == 1
    assert_allclose(model.W.detach(), X[:K] / X[:K].norm(dim=1, keepdim=True), rtol=1e-6)
    found = units.untrained(K, X, [1, 2], seed=3)
    assert len(found) == 6 and h.l0(found["k-means templates", 2, 3].encode(X)) == pytest.approx(
        2, abs=0.02
    )


def test_a_probe_is_logistic_regression_on_standardised_codes():
    x, y = map(torch.tensor, sklearn.datasets.load_iris(return_X_y=True))
    x, z = x.float(), (x - x[::2].mean(0)) / x[::2].std(0, correction=0)
    model = h.Encoder(4, 4)
    model.W.data, model.b.data = torch.eye(4), torch.zeros(4)  # its code is x, which is positive
    (got,) = side_by_side(lambda: units.probe(model, x[::2], y[::2], x[1::2], y[1::2]))
    expected = 100 * LogisticRegression(max_iter=1000).fit(z[::2], y[::2]).score(z[1::2], y[1::2])
    assert got == pytest.approx(expected)
