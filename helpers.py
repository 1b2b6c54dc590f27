"""Decoder-free sparse autoencoders by implicit EM: objective, models, fit, decoders, measures.

This file is the paper, and needs nothing else of the repository. It reads from top to bottom as the
paper does, and has the mathematics of *one* model; `lab.training.train` maps it over a stack.
Symbols: x (B, D) inputs, W (K, D) and b (K,) parameters, z = Wx + b (B, K) pre-activations,
E (B, K) energies (a low energy is a match), r (B, K) responsibilities, A (B, K) features (the
energies, where a ReLU makes them), V (K, D) decoder, lam (lambda) the factor of the volume terms.

[P] A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", 2026.
[I] A. Oursland, "Gradient Descent as Implicit EM in Distance-Based Neural Models", 2025.
"""

import warnings

import numpy as np
import torch
from torch import nn

# --- The objective: terms, of energies E (B, K) -------------------------------------------


def responsibilities(E):
    """E-step: r_ij = exp(-E_ij) / sum_k exp(-E_ik), (B, K) -> (B, K); rows sum to 1. [I]"""
    return torch.softmax(-E, dim=1)


def lse_loss(E):
    """Match: -sum_i log sum_j exp(-E_ij), in nats; (B, K) -> (). [P, I]

    Summed over the batch, not averaged, so that dL/dE_ij is r_ij itself and not r_ij / B.
    """
    return -torch.logsumexp(-E, dim=1).sum()


def uncoupled_loss(E):
    """The log-sum-exp without its coupling: sum_ij (1 - exp(-E_ij)) / Z; (B, K) -> (). Not in [P].

    Each input's own denominator, through which units compete for it, gives way to the batch's mean,
    Z = mean_i sum_j exp(-E_ij), detached. So dL/dE_ij = exp(-E_ij) / Z: no unit's share depends on
    what the others make of that input, and the batch hands out B of it, as `lse_loss` does.
    """
    e = torch.exp(-E)
    return -torch.expm1(-E).sum() * len(E) / e.detach().sum()


def variance_loss(E, eps=1e-6):
    """Existence: -sum_j log(Var_j + eps); (B, K) -> (). [P]"""
    variance = (E - E.mean(0)).square().sum(0) / (len(E) - 1)  # E.var(0), at half of its time
    return -torch.log(variance + eps).sum()


def decorrelation_loss(E):
    """Diversity: ||Corr(E) - I||_F^2 = sum_{j != k} Corr_jk^2; (B, K) -> (). [P]"""
    R = correlation(E)
    return R.square().sum() - R.diagonal().detach().square().sum()  # 0 or 1, whatever E is


def correlation(E):
    """Corr(E), (B, K) -> (K, K). A constant unit: a row and column of 0, gradient 0, never NaN."""
    mean = E.mean(0)
    C = E - mean
    norm = C.norm(dim=0)
    # Rounding leaves a constant unit with a norm of some ulp; dividing by infinity makes it 0.
    rounding = 10 * torch.finfo(E.dtype).eps * len(E) ** 0.5 * mean.detach().abs()
    Z = C / torch.where(norm > rounding, norm, torch.inf)
    return Z.T @ Z


def log_det_loss(E, noise=1e-3):
    """-log det(Cov(E) + noise I), in the place of variance and decorrelation; (B, K) -> ().

    Up to a constant, minus twice the information (nats) that E carries about a Gaussian input
    through channels of this noise variance. Computed in float64 whatever E is: in float32 large
    energies would drown the noise. NaN where E is not finite.
    """
    C = torch.cov(E.double().T).reshape(E.shape[1], -1)
    C = C + noise * torch.eye(E.shape[1], dtype=C.dtype, device=C.device)
    return -torch.logdet(C).to(E.dtype)


def l1_loss(E):
    """An SAE's penalty: the sum of all activations, none of them negative; (B, K) -> ()."""
    return E.sum()


# --- The objective: whole losses, of a model and inputs x (B, D) --------------------------
# The log-sum-exp grows with the batch, and the volume terms do not. lam is the factor of the volume
# terms at 128 rows, as published; the losses scale it to a batch of any other size.


def published_loss(
    model, x, lam=1.0, kappa=None, lse=1.0, variance=1.0, decorrelation=1.0, sparsity=lse_loss
):
    """lse L_LSE + lam (variance L_var + decorrelation L_dec) of E = model.encode(x); -> (). [P]

    Not published: the prior lam kappa |W|_F^2, as in `bounded_loss`, and another sparsity(E).
    """
    E = model.encode(x)
    volume = variance * variance_loss(E) + decorrelation * decorrelation_loss(E)
    if kappa is not None:
        volume = volume + kappa * model.W.square().sum()
    return lse * sparsity(E) + len(x) / 128 * lam * volume


def bounded_loss(model, x, lam, kappa, noise=1e-3, sparsity=lse_loss):
    """sparsity(E) + lam (-log det(Cov(E) + noise I) + kappa |W|_F^2); -> ().

    The prior kappa keeps W, and with it the energies, from growing without limit; its unit is
    that of the inputs' variance, and `prior` gives its value. kappa = 0: the log det form.
    """
    E = model.encode(x)
    volume = log_det_loss(E, noise) + kappa * model.W.square().sum()
    return sparsity(E) + len(x) / 128 * lam * volume


def sae_loss(model, x, penalty=0.0, sparsity=l1_loss):
    """Squared error + penalty * sparsity(A) of an SAE, both summed over the batch; -> ()."""
    A = model.encode(x)
    return (model.decode(A) - x).square().sum() + penalty * sparsity(A)


def prior(x, n_components):
    """kappa = tr Cov(x) / K of the training inputs x (N, D), the unit in which W is measured.

    Warns if x is far from centred; raises ValueError if it has no variance, or none that is finite.
    """
    x = as_tensor(x).double()
    if x.dim() != 2 or len(x) < 2 or not torch.isfinite(x.sum()):
        raise ValueError(f"x must be two or more rows of finite numbers, got {tuple(x.shape)}")
    variance, mean = float(x.var(0).sum()), float(x.mean(0).square().sum())
    if not variance > 0:
        raise ValueError("x is constant: all rows are the same, and there is nothing to learn")
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
    x = as_tensor(x, W)
    if x.shape[-1] != W.shape[-1]:
        raise ValueError(f"the model takes {W.shape[-1]} inputs per row, got {x.shape[-1]}")
    # Under vmap, with x shared, one wide product. x may be (..., D), as in a language model.
    return (W @ x.T).T + b if x.dim() == 2 else x @ W.T + b


def as_tensor(x, like=None):
    """Inputs as a tensor, in the number type of `like`: NumPy, float64 and integers are welcome."""
    x = x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())  # pixels, say
    return x if like is None else x.to(like.dtype)


# --- Training: one model, plain --------------------------------------------------------------


def fit(model, loss, x, *, epochs, batch_size=128, lr=1e-3, optimizer=torch.optim.Adam, seed=0):
    """Train one model in place: the loop of which `lab.training.train` is the stacked form.

    loss(model, x) -> () is the loss of a minibatch x (B, D); `seed` fixes the order of the data.
    The last rows of an epoch, too few for a minibatch, are dropped. Returns the mean loss per row
    of each epoch, a list. Raises ValueError for bad inputs, and FloatingPointError as soon as a
    loss is not finite.
    """
    x = training_inputs(x, model.W, batch_size)
    learned = [p for p in model.parameters() if p.requires_grad]
    step, order, history = optimizer(learned, lr=lr), torch.Generator().manual_seed(seed), []
    for epoch in range(epochs):
        losses, rows = [], torch.randperm(len(x), generator=order).to(x.device)
        for batch in rows.split(batch_size)[: len(x) // batch_size]:
            losses.append(loss(model, x[batch]))
            if not torch.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss became {losses[-1].item()} in epoch {epoch + 1}; try a smaller lr"
                )
            step.zero_grad()
            losses[-1].backward()
            step.step()
        history.append(float(torch.stack(losses).detach().mean()) / batch_size)
    return history


def training_inputs(x, like, batch_size):
    """x (N, D) as a tensor like the parameters; ValueError if it cannot be trained on."""
    x = as_tensor(x, like).detach()
    if batch_size < 2 or x.dim() != 2 or len(x) < batch_size:
        raise ValueError(
            f"x of shape {tuple(x.shape)} has no minibatch of {batch_size} rows (>= 2)"
        )
    if not torch.isfinite(x.sum()) and (bad := ~torch.isfinite(x)).any():
        row, column = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"x holds {int(bad.sum())} non-finite values in {int(bad.any(1).sum())} rows, "
            f"the first at row {row}, column {column}; remove those rows or mend them"
        )
    return x


# --- Decoders: x_hat = A V + offset, of a trained encoder, fitted once on x (N, D) -----------


def fit_decoder(model, x, moments=None):
    """Solve for the best linear decoder: least squares of x on A = model.encode(x).

    -> V (K, D), offset (D,), float64. A constant unit gets a row of zeros. As scikit-learn's
    LinearRegression, on features that are standardised first, so that a small variance counts.
    moments: those of `code_moments`, where they are known already.
    """
    mean, std, R, cross, x_mean = moments or code_moments(model, x)
    # What float32 has rounded away must not be inverted: eigenvalues below 1e-6 of the largest.
    rtol = 1e-12 if model.W.dtype == torch.float64 else 1e-6
    V = torch.linalg.pinv(R, rtol=rtol, hermitian=True) @ cross
    V = V / torch.where(std > 0, std, torch.inf)[:, None]
    return V, x_mean - mean @ V


def transpose_decoder(model, x, moments=None):
    """The rows of W as the decoder (of an SAE: its own), with one gain and an offset fitted on x.

    -> V (K, D), offset (D,), float64: x_hat = mean x + gain (A - mean A) W.
    """
    mean, std, R, cross, x_mean = moments or code_moments(model, x)
    rows = std[:, None] * model.decoder.detach().double()
    power = ((R @ rows) * rows).sum()
    V = model.decoder.detach().double() * ((rows * cross).sum() / power if power > 0 else 0)
    return V, x_mean - mean @ V


def with_decoder(model, x, decoder=fit_decoder):
    """A standard SAE with the model's code and the given decoder fitted on x: any tool takes it."""
    if getattr(model, "signed", False):
        raise ValueError("a signed encoder has no ReLU, and makes no sparse autoencoder")
    K, D = model.W.shape
    sae = SparseAutoencoder(D, K, k=getattr(model, "k", None)).to(model.W)
    with torch.no_grad():
        for p, value in zip((sae.W, sae.b, sae.V, sae.c), (model.W, model.b, *decoder(model, x))):
            p.copy_(value)
    return sae


@torch.no_grad()
def code_moments(model, x, chunk=1024):  # rows that stay in a cache
    """Of A = model.encode(x): means and standard deviations (K,), correlations (K, K),
    covariances (K, D) of the standardised A with x, and the mean (D,) of x; in float64.

    Centred before anything is multiplied, half precision in float32: nothing cancels or overflows.
    """
    x = as_tensor(x, model.W)
    wide, n = torch.promote_types(x.dtype, torch.float32), len(x)
    x_mean = sum(X.to(wide).sum(0).double() for X in x.split(chunk)) / n
    A = torch.cat([model.encode(X) for X in x.split(chunk)])
    rounding, A = 4 * torch.finfo(A.dtype).eps, A.double()
    mean, std = A.mean(0), A.std(0, correction=0)
    std = torch.where(std > rounding * mean.abs(), std, 0)  # what varies by rounding is constant
    Z = (A - mean) / torch.where(std > 0, std, torch.inf)
    centred = (
        (z.to(wide), X.to(wide) - x_mean.to(wide)) for z, X in zip(Z.split(chunk), x.split(chunk))
    )
    cross = sum((z.T @ X).double() for z, X in centred)
    return mean, std, Z.T @ Z / n, cross / n, x_mean


# --- What we measure, on held-out inputs: E or A (N, K) -------------------------------------


def l0(A):
    """Mean number of active (> 0) features per input. [P]"""
    return float((A > 0).double().sum(1).mean())


def dead(A):
    """Number of units that are active on no input."""
    return int((A <= 0).all(0).sum())


def low_variance(E, threshold=0.01):
    """Number of units of variance below the threshold, which the paper calls dead. [P]"""
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


@torch.no_grad()
def variance_explained(sae, x, chunk=1024):
    """1 - FVU: one minus the squared error of x_hat = sae(x) over that of the mean of x (N, D)."""
    x = as_tensor(x, sae.c)
    wide = torch.promote_types(x.dtype, torch.float32)
    mean, left, total = x.to(wide).mean(0), 0.0, 0.0
    for X in x.split(chunk):
        left += (sae(X) - X).to(wide).square().sum(0).double().sum()
        total += (X.to(wide) - mean).square().sum(0).double().sum()
    return float(1 - left / total)


@torch.no_grad()
def norm_matched_error(model, x):
    """Mean squared error per entry when each A_i W is given the norm of its input x_i; -> float.

    The reconstruction of the paper's code; its text does not mention it.
    """
    x_hat = nn.functional.normalize(model.encode(x) @ model.decoder, dim=1) * x.norm(
        dim=1, keepdim=True
    )
    return float((x_hat - x).square().mean())
