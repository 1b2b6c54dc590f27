"""What several of these notebooks need: the loss without competition, which units are the same, and
methods that trade error for sparsity, with their decoders; and the search of learning rates, which
tune.py and language.py call."""

import math
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

import helpers as h

N_FITTED = 60_000  # rows to which decoders are fitted, at most: it saves memory

# --- Competition ---------------------------------------------------------------------------------


def pooled_lse_loss(E):
    """Return -N log mean_i Z_i of energies (..., N, K), where Z_i = sum_j exp(-E_ij), a number for
    each model. All N inputs have the same denominator: the gradient is exp(-E_ij) / mean Z."""
    N = E.shape[-2]
    return -N * (h.logsumexp(-E, (-2, -1)) - math.log(N))


def matched_correlation(A, B):
    """Pair the units of A (N, K) one to one with those of B, so that they correlate best on
    average, and return this average."""
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1))[:K, K:].numpy()
    units, partners = linear_sum_assignment(R, maximize=True)
    return float(R[units, partners].mean())


# --- Methods -------------------------------------------------------------------------------------
# method(x, n_units, strengths, seeds) returns an untrained stack of M models, of strengths (M,) and
# M seeds, and losses(model, minibatch), a number for each model.


def new_layer(x, n_units, strengths, seeds, decay=0.0):
    """The paper's, with a weight of the log-sum-exp, and weight decay or none."""

    def losses(model, x):
        return h.loss(model(x), lse=strengths) + decay * model.W.square().sum((1, 2))

    return h.Encoder(x.shape[1], n_units, seeds), losses


def new_tied_sae(x, n_units, strengths, seeds):
    """An SAE with an L1 penalty, decoded by its own transposed weights."""

    def losses(model, x):
        A = model(x)
        return h.sum_squared_error(model.decode(A), x) + strengths * A.sum((1, 2))

    return h.SparseAutoencoder(x.shape[1], n_units, seeds, tied=True, mean=x.mean(0)), losses


def new_l1_sae(x, n_units, strengths, seeds):
    """An SAE with an L1 penalty. Activations are weighed by the norms of V, or they would shrink
    while V grows."""

    def losses(model, x):
        A = model(x)
        size = model.V.norm(dim=-1).unsqueeze(1)
        return h.sum_squared_error(model.decode(A), x) + strengths * (A * size).sum((1, 2))

    return h.SparseAutoencoder(x.shape[1], n_units, seeds, mean=x.mean(0)), losses


def new_top_k_sae(x, n_units, strengths, seeds):
    """Of each input, the k largest activations are kept, and what equals the least of them (Gao et
    al., 2024); a strength is a k."""
    k = strengths.long().view(-1, 1, 1)

    def top_k(z):
        largest = z.topk(int(k.max()), -1).values
        kth = largest.gather(-1, (k - 1).expand(-1, z.shape[1], 1))
        return z.relu() * (z >= kth)

    model = h.SparseAutoencoder(x.shape[1], n_units, seeds, mean=x.mean(0), activation=top_k)
    return model, lambda model, x: h.sum_squared_error(model.decode(model(x)), x)


def thresholded_pca(x, n_units, active):
    """Return a stack that is not trained, with a model for each number of active units: half of the
    units are the leading components, half their negatives, and those above a threshold are kept."""
    axes = torch.linalg.eigh(torch.cov(x.T)).eigenvectors.T[-(n_units // 2) :]
    W = torch.cat([axes, -axes])
    mean = x.mean(0)
    x = x[:N_FITTED]
    scores = ((x - mean) @ W.T).relu().flatten().sort(descending=True).values
    thresholds = scores[[n * len(x) for n in active]].view(-1, 1, 1)

    def keep(z):
        return z.where(z > thresholds, 0)

    model = h.Encoder(x.shape[1], len(W), [0] * len(active), mean, activation=keep)
    model.W.data[:] = W
    model.b.data[:] = 0
    return model.requires_grad_(False)


def train_stack(method, x, n_units, strengths, seeds, lr, epochs, batch_size=128):
    """Return a stack: for each strength, a model for each seed. After three quarters of the epochs,
    rounded down, the learning rate is a tenth."""
    each = torch.tensor(strengths).repeat_interleave(len(seeds))
    model, losses = method(x, n_units, each, [*seeds] * len(strengths))
    adam = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [max(1, 3 * epochs // 4)])
    h.fit(model, losses, x, epochs, adam, schedule.step, batch_size)
    return model.requires_grad_(False)


# --- Decoders ------------------------------------------------------------------------------------


def fit_own_decoder(model, i, A, x):
    """Return decode(A): that of model i, with the gain and offset that suit x (N, D) best."""
    gain, offset = h.fit_gain_and_offset(model.decode(A, i), x)
    return lambda A: gain * model.decode(A, i) + offset


def fit_best_decoder(A, x):
    """Return decode(A): the best linear decoder of codes A (N, K) of x (N, D), by least squares. A
    unit that is active on less than ten of these inputs has no part in it."""
    mean, x_mean = A.mean(0), x.mean(0)
    C = (A - mean).double() * ((A != 0).sum(0) >= 10)
    ridge = torch.diag(1e-6 * C.square().sum(0).clamp(min=1e-30))  # a dead unit decodes to nothing
    V = torch.linalg.solve(C.T @ C + ridge, C.T @ x.double()).to(x.dtype)
    return lambda A: x_mean + (A - mean) @ V


def variance_explained(decoded, x):
    """Return the variance of x (N, D) that decoded (N, D) explains, 1 - FVU, in percent."""
    return 100 * float(1 - (decoded - x).square().sum() / (x - x.mean(0)).square().sum())


def measure_stack(model, x, x_test):
    """Return a DataFrame with a row for each model of a stack: its sparsity and, in percent, the
    variance of x_test that its own decoder and the best one explain, as fitted to x."""
    x = x[:N_FITTED]
    A, A_test = model(x), model(x_test)
    rows = []
    for i in range(len(A)):
        own, best = fit_own_decoder(model, i, A[i], x), fit_best_decoder(A[i], x)
        rows.append(
            {
                "L0": float(h.l0(A_test[i])),
                "dead units": int(h.dead_units(A_test[i])),
                "own decoder": variance_explained(own(A_test[i]), x_test),
                "best decoder": variance_explained(best(A_test[i]), x_test),
            }
        )
    return pd.DataFrame(rows)


def interpolate_at_l0(rows, column, l0):
    """Return a column of rows, interpolated at a number of active units; NaN if no row has as few,
    or none as many."""
    rows = rows[rows["L0"] > 0].sort_values("L0")
    if rows.empty:  # all models are dead
        return np.nan
    log_l0 = np.log(rows["L0"])
    return float(np.interp(np.log(l0), log_l0, rows[column], left=np.nan, right=np.nan))


# --- The search of learning rates -----------------------------------------------------------------


def sweep_rates(methods, rates, x, x_held_out, n_units, seeds, epochs, batch_size=128):
    """Return a DataFrame with a row for each method, rate, strength and seed."""
    tables = []
    for (name, (method, strengths)), lr in tqdm([*product(methods.items(), rates)], "search"):
        model = train_stack(method, x, n_units, strengths, seeds, lr, epochs, batch_size)
        keys = {"strength": np.repeat(strengths, len(seeds)), "seed": [*seeds] * len(strengths)}
        table = pd.DataFrame({"method": name, "epochs": epochs, "lr": lr, **keys})
        tables.append(table.join(measure_stack(model, x, x_held_out)))
    return pd.concat(tables, ignore_index=True)


def score_rates(table, l0):
    """Return what each method explains at each rate: a DataFrame, methods by rates. It is NaN if a
    seed has no models with as few active units, or none with as many."""
    groups = table.groupby(["method", "lr", "seed"], sort=False)
    score = groups[[*table]].apply(interpolate_at_l0, column="own decoder", l0=l0)
    mean = score.groupby(["method", "lr"], sort=False).agg(lambda seeds: seeds.mean(skipna=False))
    return mean.unstack()
