"""What single units are: purity, agreement between seeds, probes, and encoders nobody trained."""

from itertools import combinations

import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

import helpers as h


def probe(model, x, y, x_test, y_test):
    """Test accuracy, in %, of a logistic regression on the standardised code of x (N, D).

    It stops some 0.03 points from where it would converge.
    """
    with torch.no_grad():
        A, A_test = (model.encode(t).cpu().numpy() for t in (x, x_test))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=3e-4))
    return 100 * classifier.fit(A, y.cpu()).score(A_test, y_test.cpu())


def purity(A, y):
    """Class purity of features A (N, K) of inputs with labels y (N,), mean over living units.

    Of unit j: max_c a_jc / sum_c a_jc, with its mean activation a_jc over inputs of class c.
    """
    a = torch.stack([A[y == c].double().mean(0) for c in y.unique()], 1)
    a = a[a.sum(1) > 0]
    return float((a.amax(1) / a.sum(1)).mean())


def agreement(one, other):
    """How much two models have the same units: the mean correlation of their codes (N, K).

    Units are matched one to one (Hungarian) so that this is largest. A constant unit counts as 0.
    """
    K = one.shape[1]
    block = h.correlation(torch.cat([one, other], 1).double())[:K, K:].cpu().numpy()
    return float(block[linear_sum_assignment(block, maximize=True)].mean())


def pairs(models, x):
    """Agreement of every pair of seeds at equal settings of {(method, setting, seed): model}: a
    table, empty where there is one seed."""
    cases = dict.fromkeys(key[:2] for key in models)
    rows = [row for case in cases for row in _pairs(case, models, x)]
    return pd.DataFrame(rows, columns=["method", "setting", "seed", "l0", "agreement"])


@torch.no_grad()
def _pairs(case, models, x):
    """Of models of one (method, setting); no more codes than these are held at a time."""
    codes = {key[2]: model.encode(x) for key, model in models.items() if key[:2] == case}
    return [
        (*case, f"{a}, {b}", (h.l0(A) * h.l0(B)) ** 0.5, agreement(A, B))
        for (a, A), (b, B) in combinations(codes.items(), 2)
    ]


def templates(rows, x, l0):
    """An encoder that nobody trained: the rows (K, D) at norm 1 and one bias, which makes its
    mean number of active units on x (N, D) the l0 asked for."""
    model = h.Encoder(rows.shape[1], len(rows)).to(x)
    with torch.no_grad():
        model.W.copy_(normalize(rows, dim=1))
        scores = (x[:20_000] @ model.W.T).flatten()
        rank = max(1, round(len(scores) * (1 - l0 / len(rows))))
        model.b.fill_(-float(scores.kthvalue(rank).values))
    return model


def untrained(K, x, l0s, seed, names=("k-means templates", "random weights")):
    """`templates` of k-means centroids and of random weights: {(name, l0, seed): model}."""
    found = {}
    for name in names:
        if name == "k-means templates":
            kmeans = KMeans(K, n_init=1, random_state=seed, algorithm="elkan")
            rows = torch.from_numpy(kmeans.fit(x[:20_000].cpu().numpy()).cluster_centers_)
        else:
            rows = torch.randn(K, x.shape[1], generator=torch.Generator().manual_seed(seed))
        found |= {(name, l0, seed): templates(rows.to(x), x, l0) for l0 in l0s}
    return found
