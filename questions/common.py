"""What decoder.ipynb, language.py and tune.py share: methods that trade error for sparsity, and
decoders of their codes."""

import numpy as np
import torch
from torch.optim.lr_scheduler import MultiStepLR

import helpers as h

# --- Methods: new(n_inputs, n_units, seed, strength), a model, and loss(model, minibatch, strength)


def new_layer(n_inputs, n_units, seed, strength):
    return h.Encoder(n_inputs, n_units, seed)


def new_sae(n_inputs, n_units, seed, strength, tied=False):
    return h.SparseAutoencoder(n_inputs, n_units, seed, tied)


class TopKSAE(h.SparseAutoencoder):
    """An SAE that keeps the k most active units of each input (Gao et al., 2024)."""

    def __init__(self, n_inputs, n_units, seed, k):
        super().__init__(n_inputs, n_units, seed)
        self.register_buffer("k", torch.tensor(k))

    def forward(self, x):
        A = super().forward(x)
        kth = A.sort(dim=1, descending=True).values.gather(1, (self.k - 1).expand(len(x), 1))
        return A * (A >= kth)


def layer_loss(layer, x, strength, decay=0.0):
    """Return the paper's loss, with a weight of the log-sum-exp, and weight decay or none."""
    return h.loss(layer(x), lse=strength) + decay * layer.weight.square().sum()


def squared_error(sae, A, x):
    return (sae.decode(A) - x).square().sum()


def tied_sae_loss(sae, x, strength):
    A = sae(x)
    return squared_error(sae, A, x) + strength * A.sum()


def l1_sae_loss(sae, x, strength):
    """Activations count by the norms of V, or they would shrink while V grows."""
    A = sae(x)
    return squared_error(sae, A, x) + strength * (A * sae.V.norm(dim=1)).sum()


def top_k_sae_loss(sae, x, k):  # a TopKSAE has its k
    return squared_error(sae, sae(x), x)


def train(new, loss, x, n_units, strengths, seeds, lr, epochs, batch_size=128):
    """Return a model for each strength and seed, trained side by side, by (strength, seed). After
    three quarters of the epochs, rounded down, the learning rate is a tenth.

    new : new(n_inputs, n_units, seed, strength), a model
    loss : loss(model, minibatch, strength), a number
    """
    keys = [(strength, seed) for strength in strengths for seed in seeds]
    models = [new(x.shape[1], n_units, seed, strength) for strength, seed in keys]
    each = torch.tensor([strength for strength, _ in keys])
    h.fit(
        models,
        loss,
        x,
        epochs,
        [each],
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=lr, fused=True),
        schedule=lambda adam: MultiStepLR(adam, [max(1, 3 * epochs // 4)]),
        batch_size=batch_size,
    )
    return dict(zip(keys, models))


# --- Decoders: decode(A) rebuilds x (N, D) from codes A (N, K) ------------------------------------


def fit_own_decoder(model, x):
    """Return the decoder of a model, with the gain and the offset that suit x (N, D) best."""
    gain, offset = h.fit_gain_and_offset(model.decode(model(x)), x)
    return lambda A: gain * model.decode(A) + offset


def fit_best_decoder(model, x):
    """Return the best linear decoder of a model's code, by least squares on x (N, D). A unit has
    no part in it if it is active on less than ten of these inputs."""
    A, x_mean = model(x), x.mean(0)
    mean = A.mean(0)
    C = (A - mean).double() * ((A != 0).sum(0) >= 10)
    ridge = torch.diag(1e-6 * C.square().sum(0).clamp(min=1e-30))  # a dead unit decodes to nothing
    V = torch.linalg.solve(C.T @ C + ridge, C.T @ x.double()).to(x.dtype)
    return lambda A: x_mean + (A - mean) @ V


def variance_explained(decoded, x):
    """Return the variance of x (N, D) that decoded (N, D) explains, 1 - FVU, in percent."""
    return 100 * float(1 - (decoded - x).square().sum() / (x - x.mean(0)).square().sum())


@torch.no_grad()
def measure(model, x, x_test):
    """Return a model's sparsity and what its own decoder and the best one, fitted to x, explain."""
    A = model(x_test)
    return {
        "L0": h.l0(A),
        "dead units": h.dead_units(A),
        "own decoder": variance_explained(fit_own_decoder(model, x)(A), x_test),
        "best decoder": variance_explained(fit_best_decoder(model, x)(A), x_test),
    }


def interpolate(rows, column, l0):
    """Return a column of a DataFrame of models, interpolated by log L0 at a number of active units;
    NaN if no model has as few, or none as many."""
    rows = rows[rows["L0"] > 0].sort_values("L0")
    if not rows["L0"].min() <= l0 <= rows["L0"].max():
        return float("nan")
    return float(np.interp(np.log(l0), np.log(rows["L0"]), rows[column]))


def score_rates(table, l0):
    """Return the variance that methods' own decoders explain at a number of active units, the mean
    over seeds, for each rate: a DataFrame, methods by rates; NaN if a seed has no such models."""
    groups = table.groupby(["method", "lr", "seed"], sort=False)[["L0", "own decoder"]]
    of_seeds = groups.apply(interpolate, "own decoder", l0).unstack()
    return of_seeds.mean(axis=1, skipna=False).unstack()
