"""Decoder-free sparse autoencoders from implicit EM: losses, models, training, decoders, measures.

This is the file to read, and to copy: it needs PyTorch and NumPy, and nothing else of the
repository. It reads from top to bottom as the paper does.

Symbols: x (N, D) inputs; W (K, D) and b (K,) weights and biases; E (N, K) energies, where a low
energy means a good fit; r (N, K) responsibilities; A (N, K) activations, which for an `Encoder` are
its energies; V (K, D) decoder; lam, the factor of the InfoMax terms.

[P] A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", 2026,
    arXiv 2601.06478.

From the companion to [P]. MIT licence: keep this line and LICENSE with a copy.
Needs a device with float64 (a CPU or a CUDA GPU).
"""

import math
import warnings

import numpy as np
import torch
from torch import nn

BATCH_SIZE = 128  # of the paper; `fit` takes another batch_size
ROWS_OF_LAM = 128  # lam is given for minibatches of so many rows, see `infomax_weight`

# --- Losses, of the energies E (N, K) of any network ------------------------------------------
# They are summed over the inputs of a minibatch, not averaged: so dL/dE is the responsibility.


def responsibilities(E):
    """r_ij = exp(-E_ij) / sum_k exp(-E_ik): (N, K) -> (N, K), rows sum to 1. [P, section 2]"""
    return torch.softmax(-_energies(E), dim=1)


def lse_loss(E):
    """-sum_i log sum_j exp(-E_ij), in nats: (N, K) -> (). Its gradient is r. [P, section 2]"""
    return -torch.logsumexp(-_energies(E), dim=1).sum()


def pooled_lse_loss(E):
    """-N log mean_i sum_j exp(-E_ij), the log-sum-exp without competition: (N, K) -> ().

    All inputs have one common denominator: the gradient is exp(-E_ij) / mean_i sum_k exp(-E_ik).
    Not in [P].
    """
    E = _energies(E)
    return -len(E) * (torch.logsumexp(-E, dim=(0, 1)) - math.log(len(E)))


def variance_loss(E, eps=1e-6):
    """-sum_j log(Var_j + eps): (N, K) -> (). [P, section 3]"""
    E = _energies(E, rows=2)
    variance = (E - E.mean(0)).square().sum(0) / (len(E) - 1)  # E.var(0), in half of its time
    return -torch.log(variance + eps).sum()


def correlation(E):
    """Corr(E): (N, K) -> (K, K). A constant unit has a row and a column of zeros, never NaN."""
    E = _energies(E)
    mean = E.mean(0)
    centred = E - mean
    norm = centred.norm(dim=0)
    # Rounding leaves a constant unit with a tiny norm; division by infinity makes it zero.
    rounding = 10 * torch.finfo(E.dtype).eps * len(E) ** 0.5 * mean.detach().abs()
    standardised = centred / torch.where(norm > rounding, norm, torch.inf)
    return standardised.T @ standardised


def decorrelation_loss(E):
    """||Corr(E) - I||_F^2 = sum_{j != k} Corr_jk^2: (N, K) -> (). [P, section 3]"""
    R = correlation(E)
    return R.square().sum() - R.diagonal().detach().square().sum()  # the diagonal is 1, or 0


def log_det_loss(E, s=1e-3):
    """-log det(Cov(E) + s I), in place of variance and decorrelation: (N, K) -> (). Not in [P].

    s is in units of squared energy. The determinant is computed in float64: in float32, large
    energies would drown s. With fewer rows than units Cov(E) is singular, and s alone keeps the
    determinant from zero; that works, and gets worse from about half as many rows as units.
    Non-finite energies give NaN.
    """
    E = _energies(E, rows=2)
    N, K = E.shape
    if N < K:
        warnings.warn(
            f"the log-determinant of {K} units from minibatches of {N} rows: results get worse "
            "from about half as many rows as units; take a larger batch_size",
            stacklevel=2,
        )
    cov = torch.cov(E.double().T).reshape(K, K)
    identity = torch.eye(K, dtype=cov.dtype, device=cov.device)
    return -torch.logdet(cov + s * identity).to(E.dtype)


def infomax_weight(lam, E):
    """lam N / 128, the factor of the InfoMax terms for energies E (N, K).

    The log-sum-exp grows with the minibatch and the InfoMax terms do not, so a fixed factor would
    give fewer active units in larger minibatches. In this unit lam means the same at any N.
    """
    return lam * len(E) / ROWS_OF_LAM


def infomax_loss(E):
    """Variance and decorrelation, the InfoMax terms of the paper: (N, K) -> (). [P, section 3]"""
    return variance_loss(E) + decorrelation_loss(E)


def published_loss(E, lam=1.0, penalty=lse_loss):
    """The paper's loss: penalty(E) + lam N / 128 (variance + decorrelation): (N, K) -> ().

    A larger lam gives more active units. The paper has lam = 1 and N = 128. [P, section 3]
    Raises ValueError for a single row, which has no variance.
    """
    return penalty(E) + infomax_weight(lam, E) * infomax_loss(E)


def revised_loss(E, W, lam, kappa, penalty=lse_loss, infomax=log_det_loss):
    """penalty(E) + lam N / 128 (infomax(E) + kappa ||W||_F^2): -> (). Not in [P].

    E (N, K); W (K, D), on which weight decay acts; kappa: `variance_per_unit` of the training
    inputs, or 0 for no decay. Raises ValueError if W has not a row for each unit.
    """
    E, W = _energies(E), as_tensor(W)
    if W.dim() != 2 or len(W) != E.shape[1]:
        raise ValueError(f"W (K, D) has a row for each of {E.shape[1]} units, got {tuple(W.shape)}")
    decay = kappa * W.square().sum()
    return penalty(E) + infomax_weight(lam, E) * (infomax(E) + decay)


def sae_loss(model, x, weight=0.0, penalty=torch.sum):
    """Squared error of a `SparseAutoencoder` plus weight * penalty(v), summed over x (N, D): -> ().

    v_ij = a_ij ||V_j|| (N, K): an activation times the norm of its decoder row, so that the penalty
    cannot be avoided by small activations and long rows; in a tied SAE v is a. penalty: torch.sum
    is L1 (Bricken et al., 2023); any function (N, K) -> () will do.
    """
    x = as_tensor(x, model.W)
    A = model.encode(x)
    error = (model.decode(A) - x).square().sum()
    return error + weight * penalty(A if model.tied else A * model.V.norm(dim=1))


def _energies(E, rows=1):
    """E as a tensor (N, K); ValueError for another shape, whose sums would be over other things."""
    E = as_tensor(E)
    if E.dim() != 2:
        raise ValueError(f"energies are a table (N, K), got shape {tuple(E.shape)}; flatten them")
    if len(E) < rows:
        raise ValueError(f"the variance of units needs {rows} inputs or more, got {len(E)}")
    return E


def variance_per_unit(x, n_units):
    """tr Cov(x) / K of training inputs x (N, D): kappa, the weight decay of `revised_loss`.

    With it the result does not depend on the scale of x. Raises ValueError if x is not a
    table of finite numbers, or is constant.
    """
    return float(checked_inputs(x).double().var(0).sum()) / n_units


# --- Models -----------------------------------------------------------------------------------


class Encoder(nn.Module):
    """E = relu(W x + b): x (N, D) -> energies (N, K). The whole model: no decoder. [P, section 3]

    Weights and biases start uniform in +-1/sqrt(D), as PyTorch's layers do; equal seeds give equal
    weights. Raises ValueError for sizes below 1.
    """

    def __init__(self, n_inputs, n_units, seed=0):
        super().__init__()
        self.W, self.b = _weights(n_inputs, n_units, seed)

    def forward(self, x):
        return torch.relu(_pre_activations(x, self.W, self.b))

    encode = forward

    @property
    def decoder(self):
        """W (K, D), whose transpose is the implicit decoder."""
        return self.W


class SparseAutoencoder(nn.Module):
    """a = relu(W x + b) and x_hat = a V + c: x (N, D) -> x_hat (N, D).

    tied: V is W. k: only the k largest activations of an input are kept, a TopK SAE (Gao et al.,
    2024). The rows of V (K, D) start as those of W, at norm 1. Raises ValueError for sizes below 1,
    and for a k that is no whole number from 1 to K.
    """

    def __init__(self, n_inputs, n_units, tied=False, k=None, seed=0):
        super().__init__()
        if k is not None and not (1 <= k <= n_units and k == int(k)):
            raise ValueError(f"k must be a whole number from 1 to the {n_units} units, got {k}")
        self.tied, self.k = tied, k if k is None else int(k)
        self.W, self.b = _weights(n_inputs, n_units, seed)
        if not tied:
            self.V = nn.Parameter(nn.functional.normalize(self.W.detach(), dim=1))
        self.c = nn.Parameter(torch.zeros(n_inputs))

    def encode(self, x):
        """Activations: x (..., D) -> (..., K)."""
        A = torch.relu(_pre_activations(x, self.W, self.b))
        if self.k is None:
            return A
        top = A.topk(self.k, dim=-1)
        return torch.zeros_like(A).scatter(-1, top.indices, top.values)

    def decode(self, A):
        """Reconstructions: A (..., K) -> (..., D)."""
        return A @ self.decoder + self.c

    def forward(self, x):
        return self.decode(self.encode(x))

    @property
    def decoder(self):
        """The decoder's rows, (K, D)."""
        return self.W if self.tied else self.V


def _weights(n_inputs, n_units, seed):
    if n_inputs < 1 or n_units < 1:
        raise ValueError(f"a model needs an input and a unit, got {n_inputs} and {n_units}")
    generator, bound = torch.Generator().manual_seed(seed), n_inputs**-0.5
    W, b = torch.empty(n_units, n_inputs), torch.empty(n_units)
    return [nn.Parameter(p.uniform_(-bound, bound, generator=generator)) for p in (W, b)]


def _pre_activations(x, W, b):
    x = as_tensor(x, W)
    if x.shape[-1] != W.shape[-1]:
        raise ValueError(f"the model takes {W.shape[-1]} inputs, and x has {x.shape[-1]} columns")
    # In a stack of models that see the same x, W @ x.T is one wide product.
    return (W @ x.T).T + b if x.dim() == 2 else x @ W.T + b


def as_tensor(x, like=None):
    """x, a tensor or anything that NumPy takes, as a floating tensor; with the type and the device
    of the tensor `like`."""
    x = x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())  # pixels, say
    return x if like is None else x.to(like.device, like.dtype)


def checked_inputs(x, like=None, rows=2):
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


# --- Training ---------------------------------------------------------------------------------


def rate_schedule(epochs, slow_start=False):
    """Factors of the learning rate, one an epoch: 1, and at the end 0.1.

    The last epochs // 4 have a tenth, of two epochs or more at least one: one of six, two of eight.
    slow_start: the first epoch has a twentieth; it keeps plain SGD from killing units.
    """
    last = max(epochs // 4, int(epochs > 1))
    factors = [1.0] * (epochs - last) + [0.1] * last
    return [0.05, *factors[1:]] if slow_start else factors


def fit(
    model,
    loss,
    x,
    *,
    epochs,
    batch_size=BATCH_SIZE,
    lr=1e-3,
    optimizer=torch.optim.Adam,
    schedule=None,
    seed=0,
):
    """Train a model in place. loss(model, x) -> () is the loss of a minibatch x (batch_size, D).

    x moves to the device of the model. schedule: a factor of lr for each epoch, see
    `rate_schedule`. seed: of the order of the inputs. The last rows of an epoch, too few for a
    minibatch, are dropped. An interrupted model keeps what it has learned.

    Returns the mean loss per input of each epoch, a list. Raises ValueError for inputs that cannot
    be learned from, and FloatingPointError after an epoch in which a loss was not finite.
    """
    if batch_size < 2 or epochs < 1 or (schedule is not None and len(schedule) != epochs):
        raise ValueError(
            f"needs batch_size >= 2, got {batch_size}; epochs >= 1, got {epochs}; and a schedule "
            "of a factor for each epoch, or None"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameters that require a gradient")
    x = checked_inputs(x, parameters[0], rows=batch_size)
    opt, order, history = optimizer(parameters, lr=lr), torch.Generator().manual_seed(seed), []
    rates = [group["lr"] for group in opt.param_groups]
    for epoch in range(epochs):
        for group, rate in zip(opt.param_groups, rates):
            group["lr"] = rate * (1 if schedule is None else schedule[epoch])
        losses = []
        for rows in torch.randperm(len(x), generator=order).to(x.device).split(batch_size):
            if len(rows) < batch_size:
                break
            value = loss(model, x[rows])
            opt.zero_grad()
            value.backward()
            opt.step()
            losses.append(value.detach())
        history.append(float(torch.stack(losses).mean()) / batch_size)
        if not math.isfinite(history[-1]):
            message = f"the loss became {history[-1]} in epoch {epoch + 1}"
            raise FloatingPointError(f"{message}; try a smaller lr")
    return history


# --- Decoders: x_hat = A V + offset, fitted to inputs x (N, D) after training -----------------


def fit_decoder(model, x, moments=None):
    """The best linear decoder, by least squares of x on A = model.encode(x).

    -> V (K, D) and offset (D,), in float64. A constant unit gets a row of zeros. moments: what
    `moments_of` gives, where it is known already.
    """
    mean, std, R, cross, x_mean = moments or moments_of(model, x)
    # What float32 has rounded away must not be inverted: eigenvalues below 1e-6 of the largest.
    rtol = 1e-12 if model.W.dtype == torch.float64 else 1e-6
    V = torch.linalg.pinv(R, rtol=rtol, hermitian=True) @ cross
    V = V / torch.where(std > 0, std, torch.inf)[:, None]
    return V, x_mean - mean @ V


def transpose_decoder(model, x, moments=None):
    """W^T (of a SparseAutoencoder: its decoder) times one gain, and an offset, both least squares.

    -> V (K, D) and offset (D,), in float64: x_hat = mean of x + gain (A - mean of A) W.
    """
    mean, std, R, cross, x_mean = moments or moments_of(model, x)
    decoder = model.decoder.detach().double()
    rows = std[:, None] * decoder  # of the standardised activations
    power = ((R @ rows) * rows).sum()
    V = decoder * ((rows * cross).sum() / power if power > 0 else 0)
    return V, x_mean - mean @ V


def with_decoder(model, x, decoder=fit_decoder, mean=0):
    """A standard SAE: the activations of a trained model, with a decoder fitted to x (N, D).

    x: the inputs as they are; some 20,000 rows are enough. mean: what was taken off them before
    training, D numbers or 0; the SAE takes it off itself, and adds it again. If it is forgotten,
    the SAE reads inputs that the model has never seen, and explains less.

    Raises ValueError for inputs that cannot be decoded, for a model that is no Encoder or
    SparseAutoencoder, and for inputs from which the mean has been taken off already.
    """
    if type(model) not in (Encoder, SparseAutoencoder):  # a subclass may compute something else
        raise ValueError(f"takes an Encoder or a SparseAutoencoder, got a {type(model).__name__}")
    n_units, n_inputs = model.W.shape
    x, mean = checked_inputs(x, model.W), as_tensor(mean, model.W).flatten()
    if len(mean) not in (1, n_inputs):
        raise ValueError(f"mean has {n_inputs} numbers, or is 0; got {len(mean)}")
    mean = mean.expand(n_inputs)
    if mean.any() and x.mean(0).norm() < 0.1 * mean.norm():
        raise ValueError("mean has been taken off x already: give x as it is, or no mean")
    V, offset = decoder(model, x - mean if mean.any() else x)
    sae = SparseAutoencoder(n_inputs, n_units, k=getattr(model, "k", None)).to(model.W)
    with torch.no_grad():
        sae.W.copy_(model.W)
        sae.b.copy_(model.b)
        sae.V.copy_(V)
        sae.c.copy_(offset + mean)
    shift_bias(sae, mean)
    return sae


@torch.no_grad()
def shift_bias(model, mean):
    """Change b in place: x + mean then has the activations that x had; mean (D,)."""
    model.b -= model.W @ as_tensor(mean, model.W).flatten()


@torch.no_grad()
def moments_of(model, x, chunk=1024):
    """Of A = model.encode(x): means and standard deviations (K,), correlations (K, K), covariances
    (K, D) of the standardised A with x; and the mean (D,) of x. In float64.

    All is centred before it is multiplied, so that nothing cancels. This holds A in float64, three
    times. Raises ValueError for bad x.
    """
    x = checked_inputs(x, model.W)
    wide, n = torch.promote_types(x.dtype, torch.float32), len(x)  # half precision: in float32
    x_mean = sum(part.to(wide).sum(0).double() for part in x.split(chunk)) / n
    A = torch.cat([model.encode(part) for part in x.split(chunk)])
    rounding, A = 4 * torch.finfo(A.dtype).eps, A.double()
    mean, std = A.mean(0), A.std(0, correction=0)
    std = torch.where(std > rounding * mean.abs(), std, 0)  # what varies by rounding is constant
    Z = (A - mean) / torch.where(std > 0, std, torch.inf)
    cross = sum(
        (z.to(wide).T @ (part.to(wide) - x_mean.to(wide))).double()
        for z, part in zip(Z.split(chunk), x.split(chunk))
    )
    return mean, std, Z.T @ Z / n, cross / n, x_mean


# --- Measures, on held-out inputs -------------------------------------------------------------


def l0(A):
    """Mean number of active units (A > 0) per input, of A (N, K): -> float. [P, section 4]"""
    return float((_energies(A) > 0).double().sum(1).mean())


def dead(A):
    """Number of units of A (N, K) that are active on no input: -> int."""
    return int((_energies(A) <= 0).all(0).sum())


@torch.no_grad()
def redundancy(E):
    """||Corr - I||_F^2 over the units of E (N, K) that vary: -> float. [P, section 4]

    NaN if fewer than two units vary.
    """
    R = correlation(as_tensor(E).double())
    varying = int((R.diagonal() > 0).sum())
    return float(R.square().sum() - R.diagonal().square().sum()) if varying > 1 else math.nan


@torch.no_grad()
def responsibility_entropy(E):
    """Mean over the inputs of E (N, K) of -sum_j r_j log r_j, in nats, from 0 to log K. [P, 4]"""
    r = responsibilities(as_tensor(E).double())
    return float(torch.special.entr(r).sum(1).mean())


@torch.no_grad()
def usage(E):
    """Mean responsibility of each unit over the inputs: E (N, K) -> (K,), which sum to 1. [P, 4]"""
    return responsibilities(as_tensor(E).double()).mean(0)


@torch.no_grad()
def variance_explained(sae, x, chunk=1024):
    """1 - FVU of an SAE on x (N, D): one minus its squared error over that of the mean of x.

    sae: any module that maps x to its reconstruction. Raises ValueError for an `Encoder`, which
    has none, and for constant or non-finite x.
    """
    if isinstance(sae, Encoder):
        raise ValueError("an Encoder does not reconstruct; give it a decoder: with_decoder(...)")
    x = checked_inputs(x, next(iter(sae.parameters()), None))
    wide = torch.promote_types(x.dtype, torch.float32)
    mean, error, total = x.to(wide).mean(0), 0.0, 0.0
    for part in x.split(chunk):
        error += (sae(part) - part).to(wide).square().sum(0).double().sum()
        total += (part.to(wide) - mean).square().sum(0).double().sum()
    return float(1 - error / total)
