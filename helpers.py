"""Objective, models, training and read-outs of decoder-free sparse autoencoders by implicit EM.

The module reads as the paper does: objective, models, training, what we measure, read-outs, data.
The mathematics is that of *one* model; `train` maps it over a stack of models. Symbols: x (B, D)
inputs, W (K, D) and b (K,) parameters, z = Wx + b (B, K) pre-activations, E (B, K) energies
(lower = better match), r (B, K) responsibilities, A (B, K) features (the energies, where a ReLU
makes them), V (K, D) decoder.

[P] A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", 2026.
[I] A. Oursland, "Gradient Descent as Implicit EM in Distance-Based Neural Models", 2025.
"""

import copy
import hashlib
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
import tqdm.auto
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

ROOT = Path(__file__).resolve().parent
if "OMP_NUM_THREADS" not in os.environ:  # joblib knows a container's quota of processors
    torch.set_num_threads(min(torch.get_num_threads(), joblib.cpu_count()))

# --- The objective: terms, of energies E (B, K) -------------------------------------------


def responsibilities(E):
    """E-step: r_ij = exp(-E_ij) / sum_k exp(-E_ik), (B, K) -> (B, K); rows sum to 1. [I]"""
    return torch.softmax(-E, dim=1)


def lse_loss(E):
    """Match: -sum_i log sum_j exp(-E_ij), in nats; (B, K) -> (). [P, I]

    Summed over the batch, not averaged, so that dL/dE_ij is r_ij itself and not r_ij / B.
    """
    return -torch.logsumexp(-E, dim=1).sum()


def variance_loss(E, eps=1e-6):
    """Existence: -sum_j log(Var_j + eps); (B, K) -> (). [P]"""
    return -torch.log(E.var(0) + eps).sum()


def decorrelation_loss(E):
    """Diversity: ||Corr(E) - I||_F^2 = sum_{j != k} Corr_jk^2; (B, K) -> (). [P]"""
    R = correlation(E)
    return R.square().sum() - R.diagonal().detach().square().sum()  # 0 or 1, whatever E is


def correlation(E):
    """Corr(E), (B, K) -> (K, K). A constant unit: a row and column of 0, gradient 0, never NaN."""
    C = E - E.mean(0)
    norm = C.norm(dim=0)
    # Rounding leaves a constant unit with a norm of some ulp; dividing by infinity makes it 0.
    rounding = 10 * torch.finfo(E.dtype).eps * len(E) ** 0.5 * E.detach().mean(0).abs()
    Z = C / torch.where(norm > rounding, norm, torch.inf)
    return Z.T @ Z


def log_det_loss(E, noise=1e-3):
    """-log det(Cov(E) + noise * I), what L_var and L_dec stand for; (B, K) -> ().

    Twice the information (in nats, up to a constant) that a channel of this noise variance
    carries, with its sign turned. In float64 whatever E is: in float32 large energies would drown
    the noise. NaN where E is not finite, which `train` reports.
    """
    C = torch.cov(E.double().T).reshape(E.shape[1], -1)
    C = C + noise * torch.eye(E.shape[1], dtype=C.dtype, device=C.device)
    return (-2 * torch.linalg.cholesky_ex(C).L.diagonal().log().sum()).to(E.dtype)


def l1_loss(E):
    """An SAE's penalty: the sum of all activations, none of them negative; (B, K) -> ()."""
    return E.sum()


# --- The objective: whole losses, of a model and inputs x (B, D) --------------------------
# Volume terms do not grow with the batch, and the log-sum-exp does. Their weights are those for
# 128 rows, as published, and the losses bring any other batch to it.


def published_loss(model, x, lse=1.0, variance=1.0, decorrelation=1.0, kappa=None):
    """lse L_LSE + variance L_var + decorrelation L_dec of E = model.encode(x); -> (). [P]

    Not published: with kappa, + variance kappa |W|_F^2, the prior of `bounded_loss`.
    """
    E = model.encode(x)
    volume = variance * variance_loss(E) + decorrelation * decorrelation_loss(E)
    if kappa is not None:
        volume = volume + variance * kappa * model.W.square().sum()
    return lse * lse_loss(E) + len(x) / 128 * volume


def bounded_loss(model, x, weight, kappa, noise=1e-3, sparsity=lse_loss):
    """sparsity(E) + weight (-log det(Cov(E) + noise I) + kappa |W|_F^2); -> ().

    The prior kappa keeps W, and with it the energies, from growing without limit; its unit is
    that of the inputs' variance, and `prior` gives its value. kappa = 0: the log det form.
    """
    E = model.encode(x)
    volume = log_det_loss(E, noise) + kappa * model.W.square().sum()
    return sparsity(E) + len(x) / 128 * weight * volume


def sae_loss(model, x, weight=0.0, sparsity=l1_loss):
    """Squared error + weight sparsity(A) of an SAE, both summed over the batch; -> ()."""
    A = model.encode(x)
    return (model.decode(A) - x).square().sum() + weight * sparsity(A)


def prior(x, n_components):
    """kappa = tr Cov(x) / K of the training inputs x (N, D), the unit in which W is measured.

    Warns if x is far from centred, as what `bounded_loss` is trained on should not be.
    """
    x = _tensor(x)
    variance, mean = float(x.var(0).sum()), float(x.mean(0).square().sum())
    if mean > 0.1 * variance:
        warnings.warn(
            f"the mean of x has {mean / variance:.2g} times the power of its variance; "
            "take it out first: x - x.mean(0)",
            stacklevel=2,
        )
    return variance / n_components


# --- Models -------------------------------------------------------------------------------


class Encoder(nn.Module):
    """E = relu(W x + b): x (B, D) -> energies (B, K). The whole model: no decoder. [P]

    `seed` fixes the initial W, b ~ U(-1/sqrt(D), 1/sqrt(D)): equal seeds, equal weights.
    signed: without the ReLU. Raises ValueError for sizes below 1.
    """

    def __init__(self, n_inputs, n_components, signed=False, seed=0):
        super().__init__()
        self.signed = signed
        self.W, self.b = _affine(n_inputs, n_components, seed)

    def encode(self, x):
        z = _pre_activations(x, self.W, self.b)
        return z if self.signed else torch.relu(z)

    forward = encode

    @property
    def decoder(self):
        """The rows that write, (K, D): W itself, which the paper calls a pseudo-decoder."""
        return self.W


class SparseAutoencoder(nn.Module):
    """a = relu(W x + b), x_hat = a V + c: the baseline; decoder V (K, D), tied: V = W.

    k: keep only the k largest activations of each input, a TopK SAE (Gao et al., 2024), after
    the ReLU. The decoder starts as the rows of W with norm 1; `train(..., unit_norm="V")` keeps
    them so, which keeps an L1 penalty honest. `forward` gives x_hat. Raises ValueError for sizes
    below 1.
    """

    def __init__(self, n_inputs, n_components, tied=False, k=None, seed=0):
        super().__init__()
        self.W, self.b = _affine(n_inputs, n_components, seed)
        if k is not None and not 1 <= k <= n_components:
            raise ValueError(f"k must be from 1 to {n_components}, got {k}")
        self.tied, self.k = tied, k
        if not tied:
            self.V = nn.Parameter(nn.functional.normalize(self.W.detach(), dim=1))
        self.c = nn.Parameter(torch.zeros(n_inputs))

    def encode(self, x):
        a = torch.relu(_pre_activations(x, self.W, self.b))
        if self.k is None:
            return a
        top = a.topk(self.k, dim=-1)
        return torch.zeros_like(a).scatter(-1, top.indices, top.values)

    def decode(self, a):
        return a @ self.decoder + self.c

    def forward(self, x):
        return self.decode(self.encode(x))

    @property
    def decoder(self):
        """The rows that write, (K, D)."""
        return self.W if self.tied else self.V


def _affine(n_in, n_out, seed):
    if n_in < 1 or n_out < 1:
        raise ValueError(f"a model needs at least 1 input and 1 component, got {n_in} and {n_out}")
    generator, bound = torch.Generator().manual_seed(seed), n_in**-0.5
    W, b = torch.empty(n_out, n_in), torch.empty(n_out)
    return [nn.Parameter(t.uniform_(-bound, bound, generator=generator)) for t in (W, b)]


def _pre_activations(x, W, b):
    x = _tensor(x, W)
    if x.shape[-1] != W.shape[-1]:
        raise ValueError(f"the model takes {W.shape[-1]} inputs per row, got {x.shape[-1]}")
    return (W @ x.T).T + b  # under vmap, with x shared, one wide product


def _tensor(x, like=None):
    """Inputs as a tensor in the number type of `like`: NumPy, float64 and integers are welcome."""
    x = x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())  # pixels, say
    return x if like is None else x.to(like.dtype)


# --- Training -----------------------------------------------------------------------------

ADAM = partial(torch.optim.Adam, fused=True)


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
    optimizer=ADAM,
    schedule=None,
    seed=0,
    unit_norm=None,
    monitor=None,
    every=None,
    progress="training",
):
    """Train a list of models of one shape in lockstep; they are updated in place.

    loss(model, x, **weights) -> () is the loss of one model on one minibatch x (B, D); `weights`
    holds, per keyword, one number per model (or one for all). One vmapped loss and one optimizer
    serve the whole stack. optimizer(parameters, lr=lr) must treat entries one by one, as SGD and
    Adam do. schedule: {"lr" or a keyword: one factor per epoch}.

    seed fixes the order of the data: an int for all models, or one int for each of several
    equal groups of consecutive models, [group of seed 0, group of seed 1, ...]. Within a group
    every model sees the same minibatches. Incomplete last minibatches are dropped: fewer rows
    would shift the balance of summed and unsummed terms.

    unit_norm: name of the parameter whose rows keep norm 1; as the field's libraries do it, the
    gradient along the rows is removed before each step, and the rows are rescaled after it.
    monitor(model) -> dict of numbers runs after each epoch, or before every `every`-th step.
    progress: title of the progress bar, None for no bar.

    Returns a dict of arrays (times, n_models): "loss", mean per row and epoch, and what monitor
    gave. Raises ValueError for bad arguments or inputs, FloatingPointError when a loss turns
    non-finite (parameters are as they were then). On Ctrl-C the models keep what they learned.
    """
    seeds = [int(seed)] if np.ndim(seed) == 0 else [int(s) for s in seed]
    weights, schedule = weights or {}, schedule or {}
    if not models or not seeds or len(models) % len(seeds):
        raise ValueError(f"{len(models)} models do not make {len(seeds)} equal groups, one a seed")
    x = _tensor(x, models[0].W).detach()
    _check_training(models, x, epochs, batch_size, schedule, weights)
    group, n_batches = len(models) // len(seeds), len(x) // batch_size
    objective = _Objective(copy.deepcopy(models[0]), loss).to(x.device)
    parameters = {
        name: p.detach().to(x.device).requires_grad_()
        for name, p in stack_module_state(models)[0].items()
    }
    weights = {  # one number a model
        k: torch.as_tensor(v, dtype=x.dtype, device=x.device).expand(len(models))
        for k, v in weights.items()
    }

    def one_loss(parameters, weights, x):
        named = {f"model.{name}": p for name, p in parameters.items()}
        return functional_call(objective, named, (x, weights))

    # With one seed all models share a minibatch; with several each takes its seed's.
    stack_loss = vmap(one_loss, in_dims=(0, 0, None if len(seeds) == 1 else 0))
    step = optimizer(parameters.values(), lr=float(lr))
    orders = [torch.Generator().manual_seed(s) for s in seeds]
    history = {"loss": []}

    def observe():
        _unstack(parameters, models)
        seen = [monitor(model) for model in models]
        if "loss" in seen[0]:
            raise ValueError("monitor: 'loss' is the training's own; give it another name")
        for key in seen[0]:
            history.setdefault(key, []).append([float(s[key]) for s in seen])

    bar = progress_bar(epochs, progress)
    try:
        for epoch in range(epochs):
            factors = {name: float(f[epoch]) for name, f in schedule.items()}
            step.param_groups[0]["lr"] = lr * factors.get("lr", 1.0)
            now = {name: w * factors.get(name, 1.0) for name, w in weights.items()}
            order = torch.stack([torch.randperm(len(x), generator=g) for g in orders])
            total = torch.zeros(len(models), dtype=x.dtype, device=x.device)
            if len(seeds) > 1:
                order = order.repeat_interleave(group, dim=0)
            batches = order.to(x.device).split(batch_size, dim=1)[:n_batches]
            for i, rows in enumerate(batches):
                if monitor is not None and every and (epoch * n_batches + i) % every == 0:
                    observe()
                batch = x.index_select(0, rows.flatten())  # faster than x[rows]
                if len(seeds) > 1:
                    batch = batch.unflatten(0, rows.shape)
                value = stack_loss(parameters, now, batch)
                step.zero_grad()
                value.sum().backward()
                with torch.no_grad():
                    total += value
                    if unit_norm is not None:
                        V = parameters[unit_norm]
                        V.grad -= (V.grad * V).sum(-1, keepdim=True) * V
                    step.step()
                    if unit_norm is not None:
                        V /= V.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            losses = (total / (n_batches * batch_size)).cpu().numpy()
            if not np.isfinite(losses).all():
                m = int(np.flatnonzero(~np.isfinite(losses))[0])
                raise FloatingPointError(
                    f"the loss of model {m} became {losses[m]} in epoch {epoch + 1} of {epochs}; "
                    f"training stopped. Try a smaller lr than {lr}, or smaller weights."
                )
            history["loss"].append(losses)
            if monitor is not None and not every:
                observe()
            bar.update()
    finally:  # also on Ctrl-C
        bar.close()
        _unstack(parameters, models)
    return {key: np.array(values) for key, values in history.items()}


def _check_training(models, x, epochs, batch_size, schedule, weights):
    kinds = [
        (type(m), [(n, p.shape) for n, p in m.named_parameters()])
        + tuple((k, v) for k, v in vars(m).items() if k[0] != "_")
        for m in models
    ]
    if any(k != kinds[0] for k in kinds):
        raise ValueError("models trained together must be of one class, size and options")
    if epochs < 1 or batch_size < 2:
        raise ValueError(f"at least 1 epoch and 2 rows a batch, got {epochs} and {batch_size}")
    if any(np.ndim(w) and len(w) != len(models) for w in weights.values()):
        raise ValueError(f"weights: one number, or one for each of {len(models)} models")
    for name, factors in schedule.items():
        if name not in {"lr", *weights} or len(factors) != epochs:
            raise ValueError(f"schedule: {name!r} is no weight, or has not {epochs} factors")
    if x.dim() != 2 or len(x) < batch_size:
        raise ValueError(f"x of shape {tuple(x.shape)} has no minibatch of {batch_size} rows")
    if not torch.isfinite(x.sum()) and (bad := ~torch.isfinite(x)).any():
        row, column = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"x holds {int(bad.sum())} non-finite values in {int(bad.any(1).sum())} rows, "
            f"the first at row {row}, column {column}; remove those rows or mend them"
        )


@torch.no_grad()
def _unstack(parameters, models):
    for name, stacked in parameters.items():
        for model, p in zip(models, stacked):
            model.get_parameter(name).copy_(p)


def progress_bar(total, title, unit="epoch"):
    """A bar in scripts and front ends; under `make`, on its terminal and so in no saved output."""
    terminal, silent = os.environ.get("PROGRESS", ""), title is None
    live = any(v in os.environ for v in ("JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "VSCODE_PID"))
    bar = partial(tqdm.auto.tqdm, total=total, desc=title, unit=unit, leave=False)
    if not silent and os.path.exists(terminal) and os.access(terminal, os.W_OK):
        return partial(tqdm.tqdm, **bar.keywords)(file=open(terminal, "w"))
    return bar(disable=bool(silent or terminal or ("ipykernel" in sys.modules and not live)))


# --- What we measure: features or energies of held-out inputs, E or A (N, K) -----------------


def dead_units(E, threshold=0.01):
    """Number of units whose variance is below the threshold (published: 0.01). [P]"""
    return int((E.double().var(0, correction=0) < threshold).sum())


def redundancy(E):
    """||Corr - I||_F^2 over the units that vary; NaN when fewer than two do. [P]"""
    R = correlation(E.double())
    varying = int((R.diagonal() > 0).sum())
    return float(R.square().sum() - R.diagonal().square().sum()) if varying > 1 else np.nan


def responsibility_entropy(E):
    """Mean over inputs of -sum_j r_j log r_j, in nats: 0 (one component) to log K (uniform). [P]"""
    return float(torch.special.entr(responsibilities(E.double())).sum(1).mean())


def usage(E):
    """Mean responsibility of each component, (N, K) -> (K,), sum 1: EM's mixing proportions."""
    return responsibilities(E.double()).mean(0)


def l0(A):
    """Mean number of active (> 0) features per input. [P]"""
    return float((A > 0).double().sum(1).mean())


# --- Read-outs: linear decoders x_hat = A V + offset ------------------------------------------


@torch.no_grad()
def moments(encode, x, chunk=8192):
    """What a linear read-out needs to know of features A = encode(x) (N, K) and inputs x (N, D).

    Returns means "A" (K,) and "x" (D,), covariances "AA" (K, K) and "Ax" (K, D), and the total
    variance of the inputs "xx" (), in float64. Rows are taken `chunk` at a time: float32 rows are
    summed in float32 within a chunk, in float64 over chunks.
    """
    sums, x = {}, _tensor(x)
    for X in x.split(chunk):
        A = encode(X).to(X.dtype)
        parts = {"A": A.sum(0), "x": X.sum(0), "AA": A.T @ A, "Ax": A.T @ X, "xx": X.square().sum()}
        sums = {name: sums.get(name, 0) + part.double() for name, part in parts.items()}
    m = {name: total / len(x) for name, total in sums.items()}
    m["AA"] = m["AA"] - m["A"].outer(m["A"])
    m["Ax"] = m["Ax"] - m["A"].outer(m["x"])
    m["xx"] = m["xx"] - m["x"].square().sum()
    return m


def read_outs(V, m):
    """Two decoders of features with `moments` m: {name: (V (K, D), offset (D,))}, float64.

    "gain": rows V as they are, times one number, and an offset that makes the means agree,
    x_hat = mean + g (A - mean A) V. "least squares": the best linear decoder, whatever V is.
    """
    V = V.detach().double()
    power = ((m["AA"] @ V) * V).sum()
    gain = (V * m["Ax"]).sum() / power if power > 0 else power
    # float32 moments are exact to some 1e-7 of the largest: smaller directions are rounding
    best = torch.linalg.pinv(m["AA"], rtol=1e-6, hermitian=True) @ m["Ax"]
    decoders = {"gain": gain * V, "least squares": best}
    return {name: (V, m["x"] - m["A"] @ V) for name, V in decoders.items()}


def read_out_error(V, offset, m):
    """Mean squared error per entry of x of x_hat = A V + offset, on data with `moments` m."""
    bias = m["A"] @ V + offset - m["x"]
    residual = m["xx"] - 2 * (V * m["Ax"]).sum() + ((m["AA"] @ V) * V).sum()
    return float((residual + bias.square().sum()) / len(bias))


def norm_matched_error(A, W, x):
    """Mean squared error per entry when each A_i W is given the norm of its input x_i. [P]"""
    x_hat = nn.functional.normalize(A @ W, dim=1) * x.norm(dim=1, keepdim=True)
    return float((x_hat - x).square().mean())


# --- Data ---------------------------------------------------------------------------------

MNIST = ROOT / "data" / "mnist.npz"
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"


def load_mnist(device="cpu", path=MNIST):
    """x_train (60000, 784), y_train, x_test (10000, 784), y_test: pixels in [0, 1], float32.

    Raises FileNotFoundError or ValueError, saying how to restore it, if the file is missing or
    is not the one whose checksum stands in data/README.md.
    """
    restore = "restore it with `git checkout -- data/mnist.npz`"
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing; {restore}")
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if digest != MNIST_SHA256:
        raise ValueError(
            f"{path} is corrupt: its SHA-256 is {digest}, not {MNIST_SHA256}; {restore}"
        )
    with np.load(path) as data:
        arrays = {k: torch.from_numpy(data[k]).to(device) for k in data.files}
    x = {k: arrays[k].flatten(1).float() / 255 for k in ("x_train", "x_test")}
    return x["x_train"], arrays["y_train"].long(), x["x_test"], arrays["y_test"].long()


def pick_device(name="auto"):
    """torch.device; "auto" is the GPU if there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if name == "auto" else name)
