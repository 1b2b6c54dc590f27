"""Objective, models, training and read-outs of decoder-free sparse autoencoders by implicit EM.

The module reads as the paper does: the objective, the encoder and its baseline, training,
what we measure, data. (What notebooks show and save, tables and figures, is in report.py.) The
mathematics is that of *one* model; `train` maps it over a stack of models. Symbols: x (B, D)
inputs, W (K, D) and b (K,) parameters, E (B, K) energies (lower = better match), r (B, K)
responsibilities, A (B, K) features (= E for ReLU energies).

Sources: [P] A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles",
arXiv 2601.06478, 2026. [I] A. Oursland, "Gradient Descent as Implicit EM in Distance-Based
Neural Models", 2025.
"""

import copy
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from report import (  # noqa: F401  what notebooks show and save, under the same short name
    ROOT,
    figure_style,
    in_front_end,
    judge,
    output_folder,
    plus_minus,
    progress_bar,
    save_figure,
    save_results,
    show_claims,
    show_figure,
    show_source,
    show_table,
    spread,
)

# --- The objective ------------------------------------------------------------------------


def responsibilities(E):
    """E-step: r_ij = exp(-E_ij) / sum_k exp(-E_ik), (B, K) -> (B, K); rows sum to 1. [I]"""
    return torch.softmax(-E, dim=1)


def lse_loss(E):
    """L_LSE = -sum_i log sum_j exp(-E_ij), in nats; (B, K) -> (). [P, I]

    Summed over the batch, not averaged, so that dL/dE_ij is r_ij itself and not r_ij / B.
    """
    return -torch.logsumexp(-E, dim=1).sum()


def variance_loss(E, eps=1e-6):
    """Existence: -sum_j log(Var_j + eps), Var_j the sample variance of unit j; (B, K) -> (). [P]

    Minus the diagonal half of log det Cov(E). Raises ValueError for fewer than 2 rows.
    """
    return -torch.log(_standardise(E)[1] + eps).sum()


def decorrelation_loss(E):
    """Diversity: ||Corr(E) - I||_F^2 = sum_{j != k} Corr_jk^2; (B, K) -> (). [P]

    A constant unit has no correlation: it contributes 0 to value and gradient.
    Raises ValueError for fewer than 2 rows.
    """
    return _squared_correlations(_standardise(E)[0])


def implicit_em_loss(E, lse=1.0, variance=1.0, decorrelation=1.0, eps=1e-6):
    """lse * L_LSE + variance * L_var + decorrelation * L_dec; (B, K) -> (). [P]

    L_LSE grows with the batch and the two volume terms do not: their weights are those for
    B = 128 in [P]; multiply both by B / 128 to keep the balance at another batch size.
    """
    Z, var = _standardise(E)  # once for both volume terms
    volume = decorrelation * _squared_correlations(Z) - variance * torch.log(var + eps).sum()
    return lse * lse_loss(E) + volume


def log_det_loss(E, ridge=0.01, eps=1e-6):
    """-log det Cov(E) = -sum_j log(Var_j + eps) - log det(Corr + ridge I); (B, K) -> ().

    The term that `variance_loss` and `decorrelation_loss` stand for: to second order in the
    correlations log det Corr = -||Corr - I||_F^2 / 2. The ridge keeps it finite when units
    repeat each other or K >= B. Raises ValueError for fewer than 2 rows.
    """
    Z, var = _standardise(E)
    G = _gram(Z)
    n, k = G.shape[0], Z.shape[1]
    L = torch.linalg.cholesky_ex(G + ridge * torch.eye(n, dtype=G.dtype, device=G.device))[0]
    # det(ridge I_K + Z'Z) = ridge^(K - B) det(ridge I_B + ZZ'): the smaller matrix will do.
    log_det_corr = 2 * L.diagonal().log().sum() + (k - n) * np.log(ridge)
    return -torch.log(var + eps).sum() - log_det_corr


def _standardise(E):
    """(B, K) -> Z with centred columns of norm 1 (0 if constant), so Corr = Z'Z; and Var (K,)."""
    if E.shape[0] < 2:
        raise ValueError(f"variance and correlation need at least 2 rows, got {E.shape[0]}")
    mean = E.mean(0)
    C = E - mean
    norm = torch.linalg.vector_norm(C, dim=0)
    # Rounding leaves a constant unit with a norm of some ulp: call that constant. Dividing by
    # infinity then makes column and gradient exactly 0, where 0 / 0 would make both NaN.
    noise = 10 * torch.finfo(E.dtype).eps * E.shape[0] ** 0.5 * mean.detach().abs()
    return C / torch.where(norm > noise, norm, torch.inf), norm * norm / (E.shape[0] - 1)


def _gram(Z):
    """Z'Z or ZZ', whichever is smaller: they share norm and non-zero spectrum."""
    return Z.T @ Z if Z.shape[1] <= Z.shape[0] else Z @ Z.T


def _squared_correlations(Z):
    G = _gram(Z)
    diagonal = (Z * Z).sum(0).detach()  # of Corr: 1, or 0 for a constant unit, and no gradient
    return (G * G).sum() - (diagonal * diagonal).sum()


# --- Models -------------------------------------------------------------------------------

ACTIVATIONS = {"relu": torch.relu, "identity": lambda E: E, "softplus": nn.functional.softplus}


class Encoder(nn.Module):
    """E = activation(W x + b): x (B, D) -> energies (B, K). The whole model: no decoder. [P]

    `seed` fixes the initial W, b ~ U(-1/sqrt(D), 1/sqrt(D)): equal seeds, equal weights.
    Raises ValueError for sizes below 1 or an unknown activation.
    """

    def __init__(self, n_inputs, n_components, activation="relu", seed=0):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; one of {sorted(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[activation]
        self.W, self.b = _affine(n_inputs, n_components, torch.Generator().manual_seed(seed))

    def forward(self, x):
        _check_width(x, self.W)
        return self.activation((self.W @ x.T).T + self.b)  # under vmap one wide product


class SparseAutoencoder(nn.Module):
    """a = relu(W x + b), x_hat = a V + c: the baseline; decoder rows V (K, D), V = W if tied.

    `forward` gives (x_hat, a). The constraint |V_j| = 1 that keeps an L1 penalty honest is
    `unit_norm_decoder`, for `train`. Raises ValueError for sizes below 1.
    """

    def __init__(self, n_inputs, n_components, tied=False, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.W, self.b = _affine(n_inputs, n_components, generator)
        self.tied = tied
        if not tied:
            V, _ = _affine(n_components, n_inputs, generator)
            self.V = nn.Parameter(V.detach().T.contiguous())
        self.c = nn.Parameter(torch.zeros(n_inputs))

    def encode(self, x):
        _check_width(x, self.W)
        return torch.relu((self.W @ x.T).T + self.b)

    def decode(self, a):
        return a @ (self.W if self.tied else self.V) + self.c

    def forward(self, x):
        a = self.encode(x)
        return self.decode(a), a


def sae_loss(x, x_hat, a, sparsity):
    """Summed squared error + sparsity * sum of activations, x and x_hat (B, D), a (B, K) -> ()."""
    return nn.functional.mse_loss(x_hat, x, reduction="sum") + sparsity * a.sum()


def unit_norm_decoder(parameters):
    """Constraint for `train`: project every decoder row of an untied SAE to norm 1, in place."""
    V = parameters["V"]
    V.div_(torch.linalg.vector_norm(V, dim=-1, keepdim=True).clamp_min(1e-12))


def _affine(n_in, n_out, generator):
    if n_in < 1 or n_out < 1:
        raise ValueError(f"a model needs at least 1 input and 1 component, got {n_in} and {n_out}")
    bound = n_in**-0.5
    W, b = torch.empty(n_out, n_in), torch.empty(n_out)
    return [nn.Parameter(t.uniform_(-bound, bound, generator=generator)) for t in (W, b)]


def _check_width(x, W):
    if x.shape[-1] != W.shape[-1]:
        raise ValueError(f"the model takes {W.shape[-1]} inputs per row, got {x.shape[-1]}")


# --- Training -----------------------------------------------------------------------------

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class _Objective(nn.Module):
    """A model and its loss as one module, for functional_call to put parameters into."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x, weights):
        return self.loss(self.model, x, **weights)


def train(
    models,
    loss,
    x,
    *,
    weights=None,
    epochs,
    batch_size=128,
    lr=1e-3,
    optimizer="adam",
    seed=0,
    constraint=None,
    monitor=None,
    progress="training",
):
    """Train a list of models of one shape in lockstep; they are updated in place.

    loss(model, x, **weights) -> () is the loss of one model on one minibatch x (B, D); `weights`
    holds, per keyword, one number per model (or one for all). One vmapped loss and one fused
    optimizer serve the whole stack.

    seed fixes the order of the data: an int for all models, or one int for each of several
    equal groups of consecutive models, [group of seed 0, group of seed 1, ...]. Within a group
    every model sees the same minibatches. Incomplete last minibatches are dropped: fewer rows
    would shift the balance of summed and unsummed terms.

    lr: one learning rate, or one per model. constraint(parameters) is applied in place after
    each step to the dict of stacked parameters. monitor(model) -> dict of numbers runs after
    each epoch. progress: title of the progress bar, None for no bar.

    Returns a dict of arrays (epochs, n_models): "loss", mean per row, and what monitor gave.
    Raises ValueError for bad arguments or inputs, FloatingPointError when a loss turns
    non-finite (parameters are as they were then). On Ctrl-C the models keep what they learned.
    """
    seeds = [int(seed)] if np.ndim(seed) == 0 else [int(s) for s in seed]
    _check_training(models, seeds, x, epochs, batch_size, optimizer)
    group = len(models) // len(seeds)
    x = x.detach()
    objective = _Objective(copy.deepcopy(models[0]), loss).to(x.device)
    parameters = {
        name: p.detach().to(x.device).requires_grad_()
        for name, p in stack_module_state(models)[0].items()
    }
    weights = {k: _per_model(v, models, x) for k, v in (weights or {}).items()}

    def one_loss(parameters, weights, x):
        named = {f"model.{name}": p for name, p in parameters.items()}
        return functional_call(objective, named, (x, weights))

    # With one seed all models share a minibatch; with several each takes its seed's.
    stack_loss = vmap(one_loss, in_dims=(0, 0, None if len(seeds) == 1 else 0))
    # Steps are linear in lr: with one lr per model, take steps of 1 and scale them afterwards.
    rates = None if np.ndim(lr) == 0 else _per_model(lr, models, x)
    step_lr = float(lr) if rates is None else 1.0
    step = OPTIMIZERS[optimizer](parameters.values(), lr=step_lr, fused=True)
    kept = parameters  # what the models get if the run is interrupted
    orders = [torch.Generator().manual_seed(s) for s in seeds]
    history = {"loss": []}
    bar = progress_bar(epochs, progress)
    try:
        for epoch in range(epochs):
            order = torch.stack([torch.randperm(len(x), generator=g) for g in orders])
            total = torch.zeros(len(models), dtype=x.dtype, device=x.device)
            if len(seeds) > 1:
                order = order.repeat_interleave(group, dim=0)
            batches = order.to(x.device).split(batch_size, dim=1)[: len(x) // batch_size]
            for rows in batches:
                batch = x.index_select(0, rows.flatten())  # faster than x[rows]
                if len(seeds) > 1:
                    batch = batch.unflatten(0, rows.shape)
                value = stack_loss(parameters, weights, batch)
                step.zero_grad()
                value.sum().backward()
                with torch.no_grad():
                    total += value
                    if rates is None:
                        step.step()
                    else:
                        kept = {name: p.clone() for name, p in parameters.items()}
                        step.step()
                        for name, p in parameters.items():
                            scale = rates.reshape((-1,) + (1,) * (p.dim() - 1))
                            p.copy_(torch.lerp(kept[name], p, scale))
                        kept = parameters
                    if constraint is not None:
                        constraint(parameters)
            losses = (total / (len(batches) * batch_size)).cpu().numpy()
            if not np.isfinite(losses).all():
                m = int(np.flatnonzero(~np.isfinite(losses))[0])
                raise FloatingPointError(
                    f"the loss of model {m} became {losses[m]} in epoch {epoch + 1} of {epochs}; "
                    f"training stopped. Try a smaller lr than {lr}, or smaller weights."
                )
            history["loss"].append(losses)
            if monitor is not None:
                _unstack(parameters, models)
                seen = [monitor(model) for model in models]
                for key in seen[0]:
                    history.setdefault(key, []).append([float(s[key]) for s in seen])
            bar.update()
    finally:  # also on Ctrl-C
        bar.close()
        _unstack(kept, models)
    return {key: np.array(values) for key, values in history.items()}


def _check_training(models, seeds, x, epochs, batch_size, optimizer):
    if not models or not seeds:
        raise ValueError("train needs at least one model and one seed, got an empty list")
    if len(models) % len(seeds):
        raise ValueError(f"{len(models)} models do not make {len(seeds)} equal groups, one a seed")
    shapes = [[(n, tuple(p.shape)) for n, p in m.named_parameters()] for m in models]
    kinds = [(type(m), {k: v for k, v in vars(m).items() if k[0] != "_"}) for m in models]
    if any(s != shapes[0] for s in shapes) or any(k != kinds[0] for k in kinds):
        raise ValueError("models trained together must be of one class, size and activation")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}; one of {sorted(OPTIMIZERS)}")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, got {epochs}, {batch_size}")
    if x.dim() != 2 or len(x) < batch_size:
        raise ValueError(f"x of shape {tuple(x.shape)} has no minibatch of {batch_size} rows")
    bad = ~torch.isfinite(x) if not torch.isfinite(x.sum()) else torch.zeros(1)  # seldom needed
    if bad.any():
        row, column = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"x holds {int(bad.sum())} non-finite values in {int(bad.any(1).sum())} rows, "
            f"the first at row {row}, column {column}; remove those rows or mend them"
        )


def _per_model(values, models, x):
    values = [float(values)] * len(models) if np.ndim(values) == 0 else list(values)
    if len(values) != len(models):
        raise ValueError(f"{len(models)} models take that many weights or rates, got {len(values)}")
    return torch.tensor(values, dtype=x.dtype, device=x.device)


@torch.no_grad()
def _unstack(parameters, models):
    for name, stacked in parameters.items():
        for model, p in zip(models, stacked):
            model.get_parameter(name).copy_(p)


# --- What we measure ----------------------------------------------------------------------
# All on features or energies of held-out inputs, E or A (N, K), without gradient.


def dead_units(E, threshold=0.01):
    """Number of units whose variance is below the threshold (published: 0.01). [P]"""
    return int((E.double().var(0, correction=0) < threshold).sum())


def similarity(E):
    """Correlation matrix of the units, (N, K) -> (K, K); NaN rows and columns if constant."""
    Z, _ = _standardise(E.double())
    R = Z.T @ Z
    constant = R.diagonal() == 0
    R[constant] = R[:, constant] = torch.nan
    return R


def redundancy(E):
    """||Corr - I||_F^2 over the units that vary; NaN when fewer than two do. [P]"""
    R = similarity(E)
    R = R[~R.diagonal().isnan()][:, ~R.diagonal().isnan()]
    return float(R.square().sum() - R.diagonal().square().sum()) if len(R) > 1 else float("nan")


def responsibility_entropy(E):
    """Mean over inputs of -sum_j r_j log r_j, in nats: 0 (one component) to log K (uniform). [P]"""
    return float(torch.special.entr(responsibilities(E.double())).sum(1).mean())


def usage(E):
    """Mean responsibility of each component, (N, K) -> (K,), sum 1: EM's mixing proportions."""
    return responsibilities(E.double()).mean(0)


def wins(E):
    """Fraction of inputs for which each component has the lowest energy, (N, K) -> (K,)."""
    return torch.bincount(E.argmin(1), minlength=E.shape[1]) / len(E)


def cluster_order(R):
    """Order of units that puts correlated ones side by side; R (K, K), NaN counts as 0."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(R) < 2:
        return np.arange(len(R))
    distance = 1 - np.nan_to_num(np.abs(np.asarray(R)))
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average"))


def l0(A):
    """Mean number of active (> 0) features per input."""
    return float((A > 0).double().sum(1).mean())


@torch.no_grad()
def moments(encode, x, chunk=8192):
    """What a linear read-out needs to know of features A = encode(x) (N, K) and inputs x (N, D).

    Returns means "A" (K,) and "x" (D,), covariances "AA" (K, K) and "Ax" (K, D), and the total
    variance of the inputs "xx" (), in float64. Rows are taken `chunk` at a time: float32 rows are
    summed in float32 within a chunk, in float64 over chunks.
    """
    sums = {}
    for X in x.split(chunk):
        A = encode(X).to(X.dtype)
        parts = {"A": A.sum(0), "x": X.sum(0), "AA": A.T @ A, "Ax": A.T @ X, "xx": X.square().sum()}
        sums = {name: sums.get(name, 0) + part.double() for name, part in parts.items()}
    m = {name: total / len(x) for name, total in sums.items()}
    m["AA"] = m["AA"] - m["A"].outer(m["A"])
    m["Ax"] = m["Ax"] - m["A"].outer(m["x"])
    m["xx"] = m["xx"] - m["x"].square().sum()
    return m


def read_outs(W, m):
    """Linear decoders of features with `moments` m, from W (K, D) as it is to the best there is.

    Returns {name: (V (K, D), offset (D,), how many numbers were fitted)}; x_hat = A V + offset.
    "covariance rows" is the decoder that decorrelation implies: with uncorrelated features the
    normal equations Cov(A) V = Cov(A, x) are diagonal, V_j = Cov(a_j, x) / Var(a_j); one gain
    makes up for the correlations that remain. Constant features get rows of 0 there.
    """
    W = W.detach().double()
    K, D = W.shape
    AA, Ax = m["AA"], m["Ax"]
    variance = AA.diagonal()[:, None]
    varies = variance > 1e-6 * (variance + m["A"][:, None] ** 2)  # by more than float32 rounds
    covariance = torch.where(varies, Ax / variance, 0.0)
    gains = torch.linalg.pinv(AA * (W @ W.T), hermitian=True) @ (W * Ax).sum(1)
    best = torch.linalg.pinv(AA, hermitian=True) @ Ax
    fitted = {
        "gain + offset": (_gain(W, m) * W, 1),
        "gain per component": (gains[:, None] * W, K),
        "covariance rows": (_gain(covariance, m) * covariance, K * D + 1),
        "least squares": (best, K * D),
    }
    as_it_is = {"as it is": (W, torch.zeros_like(m["x"]), 0)}
    return as_it_is | {k: (V, m["x"] - m["A"] @ V, n + D) for k, (V, n) in fitted.items()}


def read_out_error(V, offset, m):
    """Mean squared error per entry of x of x_hat = A V + offset, on data with `moments` m."""
    bias = m["A"] @ V + offset - m["x"]
    residual = m["xx"] - 2 * (V * m["Ax"]).sum() + ((m["AA"] @ V) * V).sum()
    return float((residual + bias.square().sum()) / len(bias))


def _gain(V, m):
    """The g that minimises |x - g A V|^2, both centred; 0 if A V is constant."""
    power = ((m["AA"] @ V) * V).sum()
    return (V * m["Ax"]).sum() / power if power > 0 else power


def fit_transpose_decoder(W, A, x):
    """Units for W' as decoder, x_hat = gain * A W + offset: least squares in closed form.

    A (N, K), x (N, D); offset (D,) makes the means agree. The shape comes from W (K, D) alone.
    The gain is 0 if A is constant.
    """
    m, W = moments(lambda _: A, x, chunk=len(x)), W.detach().double()
    gain = _gain(W, m)
    return float(gain), (m["x"] - gain * (m["A"] @ W)).float()


def whitening(x, eps):
    """P = (Cov(x) + eps * v I)^(-1/2) and its inverse, (D, D); v: mean variance of x's columns.

    P (x - mean) is white for eps -> 0 and merely rescaled for eps -> infinity.
    Raises ValueError unless eps > 0.
    """
    if eps <= 0:
        raise ValueError(f"whitening needs eps > 0, got {eps}: some directions have no variance")
    variance, directions = torch.linalg.eigh(moments(lambda X: X, x)["AA"])
    scale = (variance.clamp_min(0) + eps * variance.mean()).sqrt()
    return (directions / scale) @ directions.T, (directions * scale) @ directions.T


def probe_accuracy(A_train, y_train, A_test, y_test):
    """Test accuracy, in %, of multinomial logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with threadpool_limits(1):  # 2.4 times as fast as with two threads, which wait for each other
        probe.fit(np.asarray(A_train), np.asarray(y_train))
        return 100 * probe.score(np.asarray(A_test), np.asarray(y_test))


def probe_accuracies(encoders, x_train, y_train, x_test, y_test):
    """`probe_accuracy` of the features encode(x) of each encoder, a thread for each probe."""
    from threadpoolctl import threadpool_limits

    y_train, y_test = y_train.cpu(), y_test.cpu()
    n, accuracies = torch.get_num_threads(), []
    with ThreadPoolExecutor(n) as pool:
        for i in range(0, len(encoders), n):  # the features of n encoders in memory, no more
            codes = [[e(x).detach().cpu() for x in (x_train, x_test)] for e in encoders[i : i + n]]
            with threadpool_limits(1):  # one limit around all: each probe restores what it found
                accuracies += pool.map(lambda c: probe_accuracy(c[0], y_train, c[1], y_test), codes)
    return accuracies


# --- Data ---------------------------------------------------------------------------------

MNIST = ROOT / "data" / "mnist.npz"
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"


def load_mnist(path=MNIST, device="cpu"):
    """x_train (60000, 784), y_train, x_test (10000, 784), y_test: pixels in [0, 1], float32.

    Raises FileNotFoundError or ValueError, saying how to restore it, if the file is missing or
    is not the one whose checksum stands in data/README.md.
    """
    path = Path(path)
    restore = "restore it with `git checkout -- data/mnist.npz`"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; {restore}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != MNIST_SHA256:
        raise ValueError(
            f"{path} is corrupt: its SHA-256 is {digest}, not {MNIST_SHA256}; {restore}"
        )
    with np.load(path) as data:
        arrays = {k: torch.from_numpy(data[k]).to(device) for k in data.files}
    x = {k: arrays[k].flatten(1).float() / 255 for k in ("x_train", "x_test")}
    return x["x_train"], arrays["y_train"].long(), x["x_test"], arrays["y_test"].long()


DATASETS = {"mnist": load_mnist}


def load_dataset(name, device="cpu"):
    """x_train, y_train, x_test, y_test of a data set by name. Raises ValueError if unknown."""
    if name not in DATASETS:
        known = f"one of {sorted(DATASETS)}, or 'gpt2' in notebook 3"
        raise ValueError(f"unknown DATASET {name!r}; {known}")
    return DATASETS[name](device=device)


def pick_device(name="auto"):
    """torch.device; "auto" is the GPU if there is one."""
    return (
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if name == "auto"
        else torch.device(name)
    )
