"""A step of gradient descent, and a row of the best linear decoder, as means of inputs."""

from copy import deepcopy

import pandas as pd
import torch

import helpers as h
from lab import measures
from lab.parallel import side_by_side


def infomax_loss(E):
    """Variance and decorrelation, the terms of the paper's loss beside the log-sum-exp."""
    return h.variance_loss(E) + h.decorrelation_loss(E)


def means(model, x, lam, infomax=h.log_det_loss, s=1e-3, chunk=4096):
    """Of an encoder of one layer and x (N, D), taken as one minibatch, in float64: a dict.

    For the loss lse_loss(E) + lam N / 128 infomax(E), let g_ij be minus half the gradient of
    infomax(E) with respect to E_ij, r_ij the responsibilities, q = 128 / (2 lam N), and x_i what
    the layer sees: the input, without the mean that it takes off. Then

    "m_A", "sum_A", "x_A" (K,), (K, D), (K, D): the sum over active inputs of g_ij, of g_ij x_i, and
    their ratio, a mean: what is added to the bias and to the weights;
    "m_R", "sum_R", "x_R": the same with q r_ij for g_ij: what is subtracted;
    "rho" (K,): m_R / m_A, NaN for a dead unit;
    "V" (K, D): the ridge regression of x on E, (Cov(E) + s I)^-1 Cov(E, x);
    "x_I" (K, D): the mean of inactive inputs, with minus V's coefficients; "W" (K, D).

    For infomax = log_det_loss with this s the coefficients of V are the g_ij, so that
    V = m_A (x_A - x_I). Where a bias is at rest, rho = 1.
    """
    model = deepcopy(model).double()
    W = model.W.detach()

    def seen(part):
        return part.double() if model.mean is None else part.double() - model.mean

    def weighted_sum(weights):  # (N, K) -> (K, D)
        return sum(w.T @ seen(part) for w, part in zip(weights.split(chunk), x.split(chunk)))

    E = torch.cat([model.encode(part.double()).detach() for part in x.split(chunk)])
    E.requires_grad_()
    g = -torch.autograd.grad(infomax(E), E)[0] / 2
    E = E.detach()
    active, q = E > 0, h.BATCH_SIZE / (2 * lam * len(x))
    cov = torch.cov(E.T) + s * torch.eye(len(W)).to(E)
    coefficients = torch.linalg.solve(cov, (E - E.mean(0)).T).T / (len(x) - 1)
    found = {"W": W, "V": weighted_sum(coefficients)}
    for name, weights in {
        "A": g * active,  # an inactive unit learns nothing
        "R": q * h.responsibilities(E) * active,
        "I": -coefficients * ~active,
    }.items():
        found[f"m_{name}"] = weights.sum(0)
        found[f"sum_{name}"] = weighted_sum(weights)
        found[f"x_{name}"] = found[f"sum_{name}"] / weights.sum(0)[:, None]
    found["rho"] = torch.where(active.any(0), found["m_R"] / found["m_A"], torch.nan)
    return found


def rho(model, x, lam, infomax=infomax_loss):
    """What a step subtracts from a bias over what it adds, median over living units: -> float."""
    return float(means(model, x, lam, infomax)["rho"].nanmedian())


def table(models, x, x_test, infomax):
    """A DataFrame with a row for each layer of {(name, lam): model}; infomax: {name: the terms
    beside the log-sum-exp}, where they are not `infomax_loss`.

    Columns "method", "setting" (lam), "seed"; medians over its living units, on 20,000 rows of x,
    of "rho", and of two cosines with the row of the best decoder: "added and V", of what is added
    to the weights, "step and V", of that less what is subtracted; "l0", "own" and "best" of
    `lab.measures.decoded`, and the "ratio" of the two.
    """
    layers = {(*key, layer.seed): layer for key in models for layer in h.layers(models[key])}

    def row(key):
        (name, lam, _), layer = key, layers[key]
        found = means(layer, x[: measures.FITTED], lam, infomax.get(name, infomax_loss))
        living, added = found["rho"].isfinite(), found["sum_A"]
        values = {"rho": found["rho"]}
        for what, direction in {"added": added, "step": added - found["sum_R"]}.items():
            values[f"{what} and V"] = torch.cosine_similarity(direction, found["V"], dim=1)
        measured = {name: float(value[living].median()) for name, value in values.items()}
        measured |= measures.decoded(layer, x, x_test)
        return measured | {"ratio": measured["own"] / measured["best"]}

    rows = side_by_side(row, layers, "balance")
    keys = [dict(zip(("method", "setting", "seed"), key)) for key in rows]
    return pd.DataFrame(key | row for key, row in zip(keys, rows.values()))
