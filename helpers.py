"""Decoder-free sparse autoencoders from implicit EM: losses, models, training, decoders, measures.

This is the file to read, and to copy: it needs PyTorch and NumPy, and nothing else of the
repository. It reads from top to bottom as the paper does.

Symbols: x (N, D) inputs; W (K, D) and b (K,) weights and biases; E (N, K) energies, where a low
energy means a good fit; r (N, K) responsibilities; A (N, K) activations, which for an `Encoder` are
its energies; V (K, D) decoder; lam, the factor of the InfoMax terms.

A model made with a list of S seeds is a stack of S models, W (S, K, D), which train at once, each
as if it were alone. Losses, `encode`, `decode`, `fit` and `l0` take any leading dimensions, written
"..." below. Decoders and measures take one model: `split_by_seed(model)` gives a list of them.

[P] A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", 2026,
    arXiv 2601.06478.

From the companion to [P]. MIT licence: keep this line and LICENSE with a copy.
Needs a device with float64 (a CPU or a CUDA GPU).
"""

import copy
import math
import warnings
from functools import partial

import numpy as np
import torch
from torch import nn

BATCH_SIZE = 128  # rows of the paper's minibatches; lam is given for minibatches of so many
ADAM = partial(torch.optim.Adam, fused=True)

# --- Losses of the energies E (..., N, K) of any network --------------------------------------
# They are summed over the inputs of a minibatch, not averaged: so dL/dE is the responsibility.


def responsibilities(E):
    """r_ij = exp(-E_ij) / sum_k exp(-E_ik): (..., N, K) -> the same; rows sum to 1. [P, 2]"""
    return torch.softmax(-_energies(E), dim=-1)


def lse_loss(E, competition=1):
    """-sum_i log Z_i with Z_i = sum_j exp(-E_ij), in nats: (..., N, K) -> (...). [P, 2]

    Its gradient is r. Units influence each other through Z_i, the denominator of r. competition, a
    factor of that influence, is not in [P]: with Zm the mean of Z_i over the inputs, the loss is

        -N log Zm + competition sum_i log(Zm / Z_i),

    and with competition = 0 all inputs have the one denominator Zm.
    """
    log_Z = torch.logsumexp(-_energies(E), dim=-1)
    if competition == 1:
        return -log_Z.sum(-1)
    log_mean = torch.logsumexp(log_Z, dim=-1) - math.log(log_Z.shape[-1])
    return -log_Z.shape[-1] * log_mean + competition * (log_mean.unsqueeze(-1) - log_Z).sum(-1)


def variance_loss(E, eps=1e-6):
    """-sum_j log(Var_j + eps): (..., N, K) -> (...). [P, 3]"""
    E = _energies(E, rows=2)
    centred = E - E.mean(-2, keepdim=True)
    variance = centred.square().sum(-2) / (E.shape[-2] - 1)  # E.var(-2), in half of its time
    return -torch.log(variance + eps).sum(-1)


def correlation(E):
    """Corr(E): (..., N, K) -> (..., K, K). A constant unit has a row and a column of zeros."""
    E = _energies(E)
    mean = E.mean(-2, keepdim=True)
    centred = E - mean
    norm = centred.norm(dim=-2, keepdim=True)
    # Rounding leaves a constant unit with a tiny norm; division by infinity makes it zero.
    rounding = 10 * torch.finfo(E.dtype).eps * E.shape[-2] ** 0.5 * mean.detach().abs()
    standardised = centred / torch.where(norm > rounding, norm, torch.inf)
    return standardised.mT @ standardised


def decorrelation_loss(E):
    """||Corr(E) - I||_F^2 = sum_{j != k} Corr_jk^2: (..., N, K) -> (...). [P, 3]"""
    R = correlation(E)
    diagonal = R.diagonal(dim1=-2, dim2=-1).detach()  # 1, or 0 for a constant unit
    return R.square().sum((-2, -1)) - diagonal.square().sum(-1)


def infomax_loss(E):
    """`variance_loss` + `decorrelation_loss`: (..., N, K) -> (...). [P, 3]"""
    return variance_loss(E) + decorrelation_loss(E)


def log_det_loss(E, s=1e-3):
    """-log det(Cov(E) + s I), which `infomax_loss` approximates: (..., N, K) -> (...).

    s is in units of squared energy. The determinant is computed in float64: in float32, large
    energies would drown s. Warns where there are fewer than half as many rows as units: Cov(E) is
    then far from full rank, and results get worse. Not in [P].
    """
    E = _energies(E, rows=2)
    N, K = E.shape[-2:]
    if 2 * N < K:
        warnings.warn(
            f"the log-determinant of {K} units from minibatches of {N} rows gives worse results: "
            "take a larger batch_size",
            stacklevel=2,
        )
    centred = (E - E.mean(-2, keepdim=True)).double()
    cov = centred.mT @ centred / (N - 1) + s * torch.eye(K, dtype=torch.float64, device=E.device)
    return -torch.logdet(cov).to(E.dtype)


# --- Losses of a model: loss(model, x), x (..., N, D) a minibatch -> (...) --------------------


def decoder_free_loss(model, x, lam=1.0, weight_decay=0.0, infomax=infomax_loss, sparsity=lse_loss):
    """sparsity(E) + lam N / 128 (infomax(E) + weight_decay ||W||_F^2), E = model.encode(x).

    x (..., N, D) -> (...). With lam = 1, N = 128 and no weight decay it is the paper's loss. [P, 3]
    lam is a factor of what keeps units active: a larger one gives more active units. The
    log-sum-exp grows with the minibatch and the other terms do not, hence N / 128.

    weight_decay: `weight_decay_for` the training inputs is a strength that fits them. With it,
    infomax = `log_det_loss` and a model that takes the mean off its inputs it is the companion's
    revised loss, with which W^T decodes better. Not in [P].
    """
    E = model.encode(x)
    terms = infomax(E)
    if weight_decay:
        terms = terms + weight_decay * model.W.square().sum((-2, -1))
    return sparsity(E) + lam * E.shape[-2] / BATCH_SIZE * terms


def sae_loss(model, x, l1_weight=0.0):
    """Squared error of a `SparseAutoencoder` + l1_weight sum_ij a_ij ||V_j||, over all x: -> (...).

    The norm of the decoder row keeps the L1 penalty from being avoided by small activations and
    long rows (Bricken et al., 2023). A tied SAE cannot avoid it, and is penalised by a_ij alone.
    """
    x = as_tensor(x, model.W)
    A = model.encode(x)
    error = (model.decode(A) - x).square().sum((-2, -1))
    penalised = A if model.tied else A * model.V.norm(dim=-1).unsqueeze(-2)
    return error + l1_weight * penalised.sum((-2, -1))


def weight_decay_for(x, n_units):
    """tr Cov(x) / K of training inputs x (N, D), a weight decay that fits them: -> float.

    Where training is at rest, W^T is then near the best linear decoder, without a gain. It does not
    make training independent of the scale of x: rates, initial weights and the s of `log_det_loss`
    are for inputs whose entries have a standard deviation of 0.3 to 1: divide x by x.std() first.
    Raises ValueError if x is not a table of finite numbers, or is constant.
    """
    return float(_checked_inputs(x).double().var(0).sum()) / n_units


# --- Models -----------------------------------------------------------------------------------


class Encoder(nn.Module):
    """E = relu(W (x - mean) + b): x (..., N, D) -> energies (..., N, K). No decoder. [P, 3]

    mean: D numbers, taken off the inputs; None takes off nothing, as in the paper. seed: a number,
    or a list of S numbers, which makes a stack of S models: W is then (S, K, D), and the energies
    of x (N, D) are (S, N, K). Weights and biases start uniform in +-1/sqrt(D), as PyTorch's layers
    do. Raises ValueError for sizes below 1, for a mean of another length, and for an x that is not
    a table.
    """

    def __init__(self, n_inputs, n_units, mean=None, seed=0):
        super().__init__()
        self.seed = int(seed) if np.ndim(seed) == 0 else [int(s) for s in seed]
        self.W, self.b = _weights(n_inputs, n_units, self.seed)
        self.register_buffer("mean", None if mean is None else as_tensor(mean, self.W).clone())
        if mean is not None and self.mean.shape != (n_inputs,):
            raise ValueError(f"mean has {n_inputs} numbers, got shape {tuple(self.mean.shape)}")

    def pre_activations(self, x):
        """W (x - mean) + b: (..., N, D) -> (..., N, K)."""
        x = as_tensor(x, self.W)
        if x.dim() < 2:  # one input alone would cross the models of a stack
            raise ValueError(f"x is a table (..., N, D), got shape {tuple(x.shape)}: take x[None]")
        if x.shape[-1] != self.W.shape[-1]:
            raise ValueError(f"x has {x.shape[-1]} columns, the model {self.W.shape[-1]} inputs")
        x = x if self.mean is None else x - self.mean
        return x @ self.W.mT + self.b.unsqueeze(-2)

    def encode(self, x):
        """Energies, which an SAE calls activations: (..., N, D) -> (..., N, K)."""
        return torch.relu(self.pre_activations(x))

    def forward(self, x):
        return self.encode(x)

    @property
    def decoder(self):
        """W (..., K, D), whose transpose is the implicit decoder."""
        return self.W


class SparseAutoencoder(Encoder):
    """a = relu(W (x - mean) + b) and x_hat = a V + c: x (..., N, D) -> x_hat (..., N, D).

    tied: V is W. k: only the k largest activations of an input are kept, a TopK SAE (Gao et al.,
    2024). The rows of V start as those of W, at norm 1, and c starts at the mean. Raises
    ValueError as `Encoder` does, and for a k that is no whole number from 1 to K.
    """

    def __init__(self, n_inputs, n_units, mean=None, seed=0, tied=False, k=None):
        super().__init__(n_inputs, n_units, mean, seed)
        if k is not None and not (1 <= k <= n_units and k == int(k)):
            raise ValueError(f"k must be a whole number from 1 to the {n_units} units, got {k}")
        self.tied, self.k = tied, k if k is None else int(k)
        if not tied:
            self.V = nn.Parameter(nn.functional.normalize(self.W.detach(), dim=-1))
        c = torch.zeros(n_inputs) if mean is None else self.mean
        self.c = nn.Parameter(c.expand(*self.W.shape[:-2], n_inputs).clone())

    def encode(self, x):
        """Activations: (..., N, D) -> (..., N, K)."""
        A = torch.relu(self.pre_activations(x))
        if self.k is None:
            return A
        top = A.topk(self.k, dim=-1)
        return torch.zeros_like(A).scatter(-1, top.indices, top.values)

    def decode(self, A):
        """Reconstructions: (..., N, K) -> (..., N, D)."""
        return A @ self.decoder + self.c.unsqueeze(-2)

    def forward(self, x):
        return self.decode(self.encode(x))

    @property
    def decoder(self):
        """The decoder's rows, (..., K, D)."""
        return self.W if self.tied else self.V


def split_by_seed(model):
    """The models of a stack, one for each seed, as a list; of one model, a list of itself.

    Buffers are shared, so they have no dimension of seeds. Raises ValueError for a parameter whose
    first dimension is not that of the seeds.
    """
    if not isinstance(model.seed, list):
        return [model]
    models = []
    for i, seed in enumerate(model.seed):
        one = copy.deepcopy(model)
        one.seed = seed
        for name, p in model.named_parameters():
            if p.shape[:1] != (len(model.seed),):
                raise ValueError(f"{name} has not one entry for each of {len(model.seed)} seeds")
            part, _, last = name.rpartition(".")
            own = nn.Parameter(p.detach()[i].clone(), p.requires_grad)
            setattr(one.get_submodule(part), last, own)
        models.append(one)
    return models


def _weights(n_inputs, n_units, seed):
    if n_inputs < 1 or n_units < 1 or seed == []:
        raise ValueError(
            f"a model needs an input, a unit and a seed: {n_inputs}, {n_units}, {seed}"
        )
    if isinstance(seed, list):
        each = zip(*(_weights(n_inputs, n_units, s) for s in seed))
        return [nn.Parameter(torch.stack(p).detach()) for p in each]
    generator, bound = torch.Generator().manual_seed(seed), n_inputs**-0.5
    W, b = torch.empty(n_units, n_inputs), torch.empty(n_units)
    return [nn.Parameter(p.uniform_(-bound, bound, generator=generator)) for p in (W, b)]


# --- Training ---------------------------------------------------------------------------------


def lr_schedule(epochs, slow_start=False):
    """Factors of the learning rate, one an epoch: 1, and at the end 0.1.

    The last epochs // 4 have a tenth, of two epochs or more at least one: one of six, two of eight.
    slow_start: of three epochs or more the first has a twentieth; it keeps SGD from killing units.
    """
    last = max(epochs // 4, int(epochs > 1))
    factors = [1.0] * (epochs - last) + [0.1] * last
    return [0.05, *factors[1:]] if slow_start and epochs > 2 else factors


def fit(
    model,
    loss,
    x,
    *,
    epochs,
    batch_size=BATCH_SIZE,
    lr=1e-3,
    optimizer=ADAM,
    schedule=None,
    seed=None,
    after_epoch=None,
):
    """Train a model in place. loss(model, x) -> () is the loss of a minibatch x (batch_size, D).

    For a stack of S models it gives a value for each, (S,), of a minibatch for each, (S,
    batch_size, D). Their sum is minimised: with an optimizer that treats each number by itself
    (Adam, SGD; not Adafactor, Muon or L-BFGS), no model sees another.

    x moves to the device of the model. optimizer(parameters, lr=lr). schedule: a factor of lr for
    each epoch, see `lr_schedule`. seed: of the order of the inputs, a number or a list of one for
    each model; None takes the model's. The last rows of an epoch, too few for a minibatch, are
    dropped. after_epoch(model) is called after each epoch.

    An interrupted model keeps what it has learned. A second call goes on from there with a new
    optimizer, the first order of the inputs and the first factor of the schedule: twice two epochs
    are not four.

    Returns the mean loss of a minibatch in each epoch, (epochs,) or (epochs, S). Raises ValueError
    for inputs that cannot be learned from and for a loss of another shape, and FloatingPointError
    after an epoch in which a loss was not finite.
    """
    if batch_size < 2 or epochs < 1 or (schedule is not None and len(schedule) != epochs):
        raise ValueError(
            f"needs batch_size >= 2, got {batch_size}; epochs >= 1, got {epochs}; and a schedule "
            "of a factor for each epoch, or None"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameters that require a gradient")
    x = _checked_inputs(x, parameters[0], rows=batch_size)
    own = getattr(model, "seed", 0)
    shape = (len(own),) if isinstance(own, list) else ()
    seeds = [*np.broadcast_to(np.asarray(own if seed is None else seed, int), shape).flat]
    orders = [torch.Generator().manual_seed(int(s)) for s in seeds]
    opt, history = optimizer(parameters, lr=lr), []
    rates = [group["lr"] for group in opt.param_groups]
    for epoch in range(epochs):
        for group, rate in zip(opt.param_groups, rates):
            group["lr"] = rate * (1 if schedule is None else schedule[epoch])
        rows = torch.stack([torch.randperm(len(x), generator=order) for order in orders])
        losses = []
        for batch in rows.to(x.device).split(batch_size, dim=1)[: len(x) // batch_size]:
            minibatch = x.index_select(0, batch.flatten())  # faster than x[batch]
            value = loss(model, minibatch.unflatten(0, batch.shape) if shape else minibatch)
            if value.shape != shape:
                raise ValueError(
                    f"the loss has shape {tuple(value.shape)} and not {shape}, a value for each "
                    "model: sum over inputs and units, dim=(-2, -1), and not over a stack"
                )
            opt.zero_grad()
            value.sum().backward()
            opt.step()
            losses.append(value.detach())
        history.append(torch.stack(losses).mean(0).cpu())
        if not history[-1].isfinite().all():
            said = f"the loss of seed {own} became {history[-1].tolist()} in epoch {epoch + 1}"
            raise FloatingPointError(f"{said}; try a smaller lr")
        if after_epoch is not None:
            after_epoch(model)
    return torch.stack(history)


class L0NotReached(RuntimeError):
    """No setting that `fit_to_l0` tried gives the L0 that was asked for. Its attributes `model` and
    `setting` are what comes nearest."""


def fit_to_l0(new_model, loss, x, l0, *, start=1.0, tries=6, **fit_options):
    """Find the setting of a loss at which a model has l0 active units per input -> model, setting.

    new_model() gives an untrained model, loss(model, x, setting) is its loss: setting is the lam
    of `decoder_free_loss`, the l1_weight of `sae_loss`, ... Trains with fit(..., **fit_options) at
    most `tries` times, first with setting `start`, until the mean L0 on the training rows, of a
    stack over its models, is within 3% of l0. log L0 is taken as linear in log setting.

    Raises ValueError for an l0 out of range, L0NotReached if L0 is not reached or hardly depends on
    the setting (it says what was tried), and FloatingPointError if a run diverges.
    """
    n_units = new_model().W.shape[-2]
    if not (0 < l0 < n_units and start > 0 and tries >= 1):
        raise ValueError(
            f"needs l0 between 0 and the {n_units} units, got {l0}; start > 0, got {start}; and "
            f"tries >= 1, got {tries}"
        )
    setting, tried = start, []  # pairs of log setting and log of L0 over l0
    while len(tried) < tries:
        model = new_model()
        try:
            fit(model, lambda model, x, s=setting: loss(model, x, s), x, **fit_options)
        except FloatingPointError as error:
            raise FloatingPointError(f"with the setting {setting:.3g} {error}") from None
        reached = _mean_l0(model, x)
        if abs(reached / l0 - 1) <= 0.03:
            return model, setting
        tried.append((math.log(setting), math.log(max(reached, 0.01) / l0)))
        if abs(tried[-1][1]) == min(abs(distance) for _, distance in tried):
            nearest = model, setting
        (log_s, distance), *others = sorted(tried, key=lambda point: abs(point[1]))
        if not others:
            setting *= 2
            continue
        # The nearest on the other side, if there is one, encloses the l0
        other_s, other = min(others, key=lambda point: point[1] * distance > 0)
        slope = (distance - other) / (log_s - other_s)
        if abs(slope) < 0.02:  # of two near settings chance alone; the two furthest apart tell
            (low_s, low), *_, (high_s, high) = sorted(tried)
            slope = (high - low) / (high_s - low_s)
            if abs(slope) < 0.02:
                break
        setting = math.exp(log_s - min(2, max(-2, distance / slope)))
        settings = [math.exp(s) for s, _ in tried]
        if np.isclose(setting, settings, rtol=1e-6).any():  # the last try was no nearer
            setting = math.exp((log_s + other_s) / 2)
            if np.isclose(setting, settings, rtol=1e-6).any():
                break
    said = ", ".join(f"{math.exp(s):.3g} gives {l0 * math.exp(d):.3g}" for s, d in tried)
    error = L0NotReached(
        f"L0 {l0:g} was not reached: {said}; try another start, or more tries. If L0 hardly "
        "depends on the setting, see that the loss uses it"
    )
    error.model, error.setting = nearest
    raise error


@torch.no_grad()
def _mean_l0(model, x, chunk=4096):
    parts = (as_tensor(x[i : i + chunk], model.W) for i in range(0, len(x), chunk))
    return float(sum(l0(model.encode(part)).mean() * len(part) for part in parts) / len(x))


# --- Decoders of one model, which has `encode`, `decoder` and W: x_hat = A V + offset. They are
# fitted to inputs x (N, D) after training.


def best_decoder(model, x, min_active=10):
    """The best linear decoder, by least squares of x on A = model.encode(x).

    -> V (K, D) and offset (D,), in float64. Units that are constant, or active on fewer than
    `min_active` of the rows, get a row of zeros: from so few rows there is nothing to learn.
    """
    A, A_mean, x_mean, cov, cross = _moments(model, x)
    std = cov.diagonal().sqrt()
    rounding = 4 * torch.finfo(model.W.dtype).eps * A_mean.abs()
    std = torch.where((std > rounding) & ((A != 0).sum(0) >= min_active), std, torch.inf)
    # What float32 has rounded away must not be inverted: eigenvalues below 1e-6 of the largest.
    rtol = 1e-12 if model.W.dtype == torch.float64 else 1e-6
    R = cov / std / std[:, None]
    V = torch.linalg.pinv(R, rtol=rtol, hermitian=True) @ (cross / std[:, None]) / std[:, None]
    return V, x_mean - A_mean @ V


def own_decoder(model, x, gain_per_unit=False):
    """W^T (of a SparseAutoencoder: its decoder) times a gain, and an offset, by least squares.

    -> V (K, D) and offset (D,), in float64: x_hat = mean of x + (A - mean of A) (gain * W), with
    one gain for all units, or with gain_per_unit one for each, which is 0 for a dead unit.
    """
    _, A_mean, x_mean, cov, cross = _moments(model, x)
    W = model.decoder.detach().double()
    power, target = cov * (W @ W.T), (W * cross).sum(1)  # minus the error: 2 g @ target - g power g
    if gain_per_unit:
        gain = torch.linalg.pinv(power, hermitian=True) @ target
    else:
        gain = target.sum().div(power.sum()).nan_to_num(0).expand(len(W))
    V = gain[:, None] * W
    return V, x_mean - A_mean @ V


@torch.no_grad()
def _moments(model, x, chunk=4096):
    """A = model.encode(x), the means (K,) and (D,) of A and x, Cov(A) and Cov(A, x). In float64."""
    _not_a_stack(model)
    x = _checked_inputs(x, model.W)
    A = torch.cat([model.encode(part) for part in x.split(chunk)]).double()
    A_mean = A.mean(0)
    x_mean = sum(part.double().sum(0) for part in x.split(chunk)) / len(x)
    cov, cross = 0, 0
    for a, part in zip(A.split(chunk), x.split(chunk)):
        a = a - A_mean  # all is centred before it is multiplied, so that nothing cancels
        cov, cross = cov + a.T @ a, cross + a.T @ (part.double() - x_mean)
    return A, A_mean, x_mean, cov / len(x), cross / len(x)


class _Decoded(nn.Module):
    """The activations of a model, decoded by A V + offset."""

    def __init__(self, model, V, offset):
        super().__init__()
        self.model = model
        self.register_buffer("V", V.to(model.W))
        self.register_buffer("offset", offset.to(model.W))

    def encode(self, x):
        return self.model.encode(x)

    def decode(self, A):
        return A @ self.V + self.offset

    def forward(self, x):
        return self.decode(self.encode(x))


def with_decoder(model, x, decoder=best_decoder):
    """A trained model with a decoder fitted to x (N, D): a module with `encode` and `decode`, whose
    `forward` reconstructs. Some 20,000 random rows of x are enough. Where the model is trained
    further, its decoder is out of date: call this again."""
    return _Decoded(model, *decoder(model, x))


# --- Measures, on held-out inputs. All but l0 take one model, not a stack ---------------------


def l0(A):
    """Mean number of active units (A > 0) per input: (..., N, K) -> (...). [P, 4]"""
    return (_energies(A) > 0).double().sum(-1).mean(-1)


def n_dead(A):
    """Number of units of A (N, K) that are active on no input: -> int."""
    return int((~(_of_one_model(A) > 0).any(0)).sum())


def usage(A):
    """On what share of the inputs each unit is active: A (N, K) -> (K,), from 0 to 1."""
    return (_of_one_model(A) > 0).double().mean(0)


@torch.no_grad()
def redundancy(E):
    """||Corr - I||_F^2 over the units of E (N, K) that vary: -> float. [P, 4]

    NaN if fewer than two units vary.
    """
    R = correlation(_of_one_model(E).double())
    varying = int((R.diagonal() > 0).sum())
    return float(R.square().sum() - R.diagonal().square().sum()) if varying > 1 else math.nan


@torch.no_grad()
def responsibility_entropy(E):
    """Mean over the inputs of E (N, K) of -sum_j r_j log r_j, in nats, from 0 to log K. [P, 4]"""
    r = responsibilities(_of_one_model(E).double())
    return float(torch.special.entr(r).sum(1).mean())


@torch.no_grad()
def variance_explained(sae, x, chunk=4096):
    """1 - FVU of an SAE on x (N, D): one minus its squared error over that of the mean of x.

    sae: any module that maps x to its reconstruction. Raises ValueError for a model without a
    decoder, and for constant or non-finite x.
    """
    if hasattr(sae, "encode") and not hasattr(sae, "decode"):
        raise ValueError("the model does not reconstruct; give it a decoder: with_decoder(...)")
    _not_a_stack(sae)
    state = (t for t in sae.state_dict().values() if t.is_floating_point())
    x = _checked_inputs(x, next(state, None))
    mean, error, total = x.double().mean(0), 0.0, 0.0
    for part in x.split(chunk):
        error += (sae(part).double() - part).square().sum()
        total += (part - mean).square().sum()
    return float(1 - error / total)


# --- What the user gives ----------------------------------------------------------------------


def as_tensor(x, like=None):
    """x, a tensor or anything that NumPy takes, as a floating tensor; with the type and the device
    of the tensor `like`."""
    x = x if isinstance(x, torch.Tensor) else torch.as_tensor(np.array(x))
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())  # pixels, say
    return x if like is None else x.to(like.device, like.dtype)


def _energies(E, rows=1):
    """E as a tensor (..., N, K); ValueError for fewer dimensions, or too few rows."""
    E = as_tensor(E)
    if E.dim() < 2:
        raise ValueError(f"energies are a table (N, K), got shape {tuple(E.shape)}")
    if E.shape[-2] < rows:
        raise ValueError(f"the variance of units needs {rows} inputs or more, got {E.shape[-2]}")
    return E


def _of_one_model(E):
    E = _energies(E)
    if E.dim() > 2:
        raise ValueError(
            f"takes the energies of one model (N, K), got shape {tuple(E.shape)}: measure each of "
            "split_by_seed(model)"
        )
    return E


def _not_a_stack(model):
    if isinstance(seeds := getattr(model, "seed", 0), list):
        raise ValueError(
            f"takes one model, and this is a stack of {len(seeds)}: split_by_seed(model)"
        )


def _checked_inputs(x, like=None, rows=2):
    """x (N, D) as a tensor; a ValueError says what to do if nothing can be learned from it."""
    x = as_tensor(x, like).detach()
    if x.dim() != 2 or len(x) < rows:
        raise ValueError(
            f"x must be a table of {rows} rows or more, a minibatch if it is to be learned from; "
            f"got shape {tuple(x.shape)}"
        )
    if not torch.isfinite(x.sum()) and (bad := ~torch.isfinite(x)).any():
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"x has {int(bad.sum())} values that are not finite, the first at row {row}, column "
            f"{column}; remove these rows, or mend them"
        )
    if (x == x[0]).all():
        raise ValueError("x is constant: all its rows are the same, and nothing can be learned")
    return x
