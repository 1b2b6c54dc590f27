"""The loss, the encoder and the training loop of a decoder-free sparse autoencoder.

x (N, D) inputs; W (K, D), b (K,) weights and biases; E (N, K) energies, where a low energy is a
good fit; r (N, K) responsibilities; A (N, K) activations, of an `Encoder` its energies; V (K, D)
decoder. To be copied: it needs PyTorch alone.

[P] A. Oursland, "Deriving Decoder-Free Sparse Autoencoders from First Principles", 2026,
    arXiv 2601.06478. MIT licence.
"""

import math
from functools import partial

import torch
from torch import nn
from torch.nn.functional import linear, normalize

BATCH_SIZE = 128  # of the paper; lam is a weight for minibatches of so many rows
ADAM = partial(torch.optim.Adam, fused=True)  # the same steps, in half of the time

# --- The loss: of the energies of a minibatch; the log-sum-exp is a sum over inputs, no mean ------


def responsibilities(E):
    """r_ij = exp(-E_ij) / sum_k exp(-E_ik): (N, K) -> (N, K), rows sum to 1. [P, 2]"""
    return torch.softmax(-E, dim=-1)


def lse_loss(E, competition=1.0):
    """-sum_i log Z_i with Z_i = sum_j exp(-E_ij); its gradient is the responsibility. [P, 2]

    competition (ours) = 0 gives all inputs one denominator, the mean of Z, so that no unit feels
    which others are active on an input; others inter- or extrapolate log Z. E (..., N, K) -> (...).
    """
    log_Z = torch.logsumexp(-E, dim=-1)
    if competition != 1:
        shared = torch.logsumexp(log_Z, dim=-1, keepdim=True) - math.log(log_Z.shape[-1])
        log_Z = torch.lerp(shared.expand_as(log_Z), log_Z, competition)
    return -log_Z.sum(-1)


def variance_loss(E):
    """-sum_j log(Var(E_j) + 1e-6): keeps units alive. [P, 3]"""
    C = E - E.mean(0)
    return -torch.log(C.square().sum(0) / (len(E) - 1) + 1e-6).sum()  # faster than E.var(0)


def correlation(E):
    """Corr(E), (K, K). A dead unit has zeros."""
    C = normalize(E - E.mean(0), dim=0)
    return C.T @ C


def decorrelation_loss(E):
    """sum_{j != k} Corr(E_j, E_k)^2: no two units alike. [P, 3]"""
    R = correlation(E)
    return R.square().sum() - R.diagonal().detach().square().sum()  # R_jj is 1 or 0: no gradient


def infomax_loss(E):
    """What replaces the log-determinant of a mixture. [P, 3]"""
    return variance_loss(E) + decorrelation_loss(E)


def log_det_loss(E, s=1e-3):
    """-log det(Cov(E) + s I), which `infomax_loss` approximates (ours), in float64. ValueError for
    fewer than K/2 rows: Cov(E) is then far from full rank."""
    N, K = E.shape
    if 2 * N < K:
        raise ValueError(f"Cov(E) of {K} units from {N} rows: take a batch_size of {K} or more")
    C = E.double() - E.double().mean(0)
    return -torch.logdet(C.T @ C / (N - 1) + s * torch.eye(K).to(C)).to(E.dtype)


def decoder_free_loss(model, x, lam=1.0, weight_decay=0.0, infomax=infomax_loss, sparsity=lse_loss):
    """sparsity(E) + lam N/128 (infomax(E) + weight_decay ||W||^2); the paper's as it stands. [P, 3]

    Of 128 inputs the log-sum-exp is 128 times that of one, and infomax is not: hence N/128. A
    larger lam leaves more units active. Ours: tr Cov(x) / K is a weight_decay with which W^T
    decodes; with it and `log_det_loss`, this is the revised loss."""
    E = model.encode(x)
    volume = infomax(E)
    if weight_decay:
        volume = volume + weight_decay * model.W.square().sum()
    return sparsity(E) + lam * len(x) / BATCH_SIZE * volume


def sae_loss(model, x, l1_weight=0.0):
    """Squared error + l1_weight sum_ij a_ij ||V_j||, so that rows do not grow as activations
    shrink; tied, they cannot, and the penalty is sum_ij a_ij."""
    A = model.encode(x)
    penalty = A if model.tied else A * model.V.norm(dim=1)
    return (model.decode(A) - x).square().sum() + l1_weight * penalty.sum()


# --- Models ---------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """E = relu(W (x - mean) + b), without a decoder; the paper takes no mean off. [P, 3]"""

    def __init__(self, n_inputs, n_units, mean=None, seed=0):
        super().__init__()
        self.seed = seed
        rng, bound = torch.Generator().manual_seed(seed), n_inputs**-0.5  # as PyTorch's layers
        self.W = nn.Parameter(torch.empty(n_units, n_inputs).uniform_(-bound, bound, generator=rng))
        self.b = nn.Parameter(torch.empty(n_units).uniform_(-bound, bound, generator=rng))
        self.register_buffer("mean", None if mean is None else torch.as_tensor(mean).to(self.W))

    def pre_activations(self, x):
        x = x.to(self.W)
        return linear(x if self.mean is None else x - self.mean, self.W, self.b)

    def encode(self, x):
        return torch.relu(self.pre_activations(x))

    def forward(self, x):
        return self.encode(x)

    @property
    def decoder(self):
        """(K, D). An encoder has none; its weights are taken for one."""
        return self.W


class SparseAutoencoder(Encoder):
    """a = relu(W (x - mean) + b), x_hat = a V + c; tied: V is W; k: only the k largest stay."""

    def __init__(self, n_inputs, n_units, mean=None, seed=0, tied=False, k=None):
        super().__init__(n_inputs, n_units, mean, seed)
        self.tied, self.k = tied, k
        if not tied:
            self.V = nn.Parameter(normalize(self.W.detach(), dim=1))
        self.c = nn.Parameter(torch.zeros(n_inputs) if mean is None else self.mean.clone())

    def encode(self, x):
        A = super().encode(x)
        if self.k is None:
            return A
        top = A.topk(self.k, dim=-1)
        return torch.zeros_like(A).scatter(-1, top.indices, top.values)

    def decode(self, A):
        return A @ self.decoder + self.c

    def forward(self, x):
        return self.decode(self.encode(x))

    @property
    def decoder(self):
        return self.W if self.tied else self.V


# --- Training -------------------------------------------------------------------------------------


def fit(model, loss, x, *, epochs, lr=1e-3, batch_size=BATCH_SIZE, optimizer=ADAM, schedule=None,
        after_epoch=lambda model: None):  # fmt: skip
    """Minimise loss(model, x) over minibatches of x (N, D); -> its mean in each epoch.

    schedule: a factor of lr for each epoch. The order of the inputs is that of model.seed; the last
    rows, too few for a minibatch, are left out. ValueError for an x from which nothing can be
    learned or a schedule of another length, FloatingPointError if training diverges."""
    table = torch.is_tensor(x) and x.dim() == 2 and len(x) >= batch_size
    if not (table and all(part.isfinite().all() for part in x.split(4096))):
        raise ValueError(f"x must be a tensor (N, D) of finite numbers, {batch_size} rows or more")
    x = x.to(next(model.parameters()))
    opt, history = optimizer(model.parameters(), lr=lr), []
    order = torch.Generator().manual_seed(getattr(model, "seed", 0))
    for _, factor in list(zip(range(epochs), schedule or [1.0] * epochs, strict=True)):
        for group in opt.param_groups:
            group["lr"] = lr * factor
        losses = []
        rows = torch.randperm(len(x), generator=order).to(x.device).split(batch_size)
        for batch in rows[: len(x) // batch_size]:
            value = loss(model, x.index_select(0, batch))  # faster than x[batch]
            opt.zero_grad()
            value.backward()
            opt.step()
            losses.append(value.detach())
        history.append(torch.stack(losses).mean())
        if not all(p.isfinite().all() for p in (history[-1], *model.parameters())):
            raise FloatingPointError(f"diverged in epoch {len(history)}; try a smaller lr")
        after_epoch(model)
    return torch.stack(history)


class L0NotReached(RuntimeError):
    """Its `model` and `setting` are what came nearest."""


def fit_to_l0(new_model, loss, x, l0, *, start=1.0, tries=6, **fit_options):
    """Find the setting of loss(model, x, setting), from `start` on, at which new_model() has l0
    active units on x, to 3% -> model, setting.

    log L0 is taken as linear in log setting, between the two nearest tries. ValueError for an l0 or
    start that is not positive, L0NotReached, FloatingPointError if the first try diverges."""
    if not (l0 > 0 and start > 0):
        raise ValueError(f"needs l0 > 0, got {l0}, and start > 0, got {start}")
    tried, at, last = [], math.log(start), None  # (log of L0 over l0, log of the setting, model)
    for _ in range(tries):
        model, setting = new_model(), math.exp(at)
        try:
            fit(model, lambda model, x, s=setting: loss(model, x, s), x, **fit_options)
        except FloatingPointError:
            if not tried:
                raise
            at = (at + tried[0][1]) / 2  # back to what came nearest
            continue
        n_active = sum(int((model.encode(part) > 0).sum()) for part in x.split(4096))
        tried.append((math.log(max(n_active / len(x), 0.01) / l0), at, model))
        tried.sort(key=lambda one: abs(one[0]))
        (miss, at, model), *others = tried
        if abs(math.expm1(miss)) <= 0.03:
            return model, math.exp(at)
        # On the other side of l0, if there is one, else the next nearest
        other = next((one for one in others if one[0] * miss < 0), others[0] if others else None)
        slope = (miss - other[0]) / (at - other[1]) if other else -miss / math.log(2)
        if abs(slope) < 0.02:  # of two near settings chance alone; the two furthest apart tell
            (low, low_at, _), *_, (high, high_at, _) = sorted(tried, key=lambda one: one[1])
            slope = (high - low) / (high_at - low_at)
            if abs(slope) < 0.02:
                break
            miss, at = (low, low_at) if miss * slope > 0 else (high, high_at)  # and go on beyond
        halfway = other and other is last and other[0] * miss < 0  # that end stays: it is steep
        step = (at - other[1]) / 2 if halfway else max(-2.0, min(2.0, miss / slope))
        at, last = at - step, other
        if any(abs(at - s) < 1e-6 for _, s, _ in tried):
            break
    miss, at, model = tried[0]
    pairs = ", ".join(f"{math.exp(s):.3g} gives {l0 * math.exp(m):.3g}" for m, s, _ in tried)
    error = L0NotReached(f"L0 {l0:g} was not reached: {pairs}; see that the loss uses its setting")
    error.model, error.setting = model, math.exp(at)
    raise error


# --- After training: decoders x_hat = A V + offset, by least squares on some 20,000 rows of x -----


@torch.no_grad()
def moments(model, x, rows=4096):
    """A = model.encode(x), the means of A and x, N Cov(A) and N Cov(A, x), in float64, by parts."""
    A = torch.cat([model.encode(part) for part in x.split(rows)]).double()
    A_mean, x_mean = A.mean(0), sum(part.to(A).sum(0) for part in x.split(rows)) / len(x)
    C = A - A_mean
    cross = sum(c.T @ (part.to(A) - x_mean) for c, part in zip(C.split(rows), x.split(rows)))
    return A, A_mean, x_mean, C.T @ C, cross


def best_decoder(model, x, min_active=10):
    """The best one: V (K, D), offset (D,), float64; 0 for units active on too few rows of x."""
    A, A_mean, x_mean, cov, cross = moments(model, x)
    std = cov.diagonal().sqrt()
    std[((A != 0).sum(0) < min_active) | (std < 1e-6 * len(x) ** 0.5 * A_mean.abs())] = torch.inf
    R = cov / std / std[:, None]  # what float32 has rounded away is not inverted
    V = torch.linalg.pinv(R, rtol=1e-6, hermitian=True) @ (cross / std[:, None]) / std[:, None]
    return V, x_mean - A_mean @ V


def own_decoder(model, x):
    """W^T, or an SAE's decoder, times the one gain that fits best: V (K, D) and offset (D,)."""
    _, A_mean, x_mean, cov, cross = moments(model, x)
    W = model.decoder.detach().double()
    V = (W * cross).sum() / (cov * (W @ W.T)).sum().clamp_min(1e-300) * W
    return V, x_mean - A_mean @ V


class Decoded(nn.Module):
    """A trained model with a decoder fitted to x (N, D): its output is x_hat."""

    def __init__(self, model, x, decoder=best_decoder):
        super().__init__()
        self.model = model
        V, offset = decoder(model, x)
        self.register_buffer("V", V.to(model.W))
        self.register_buffer("offset", offset.to(model.W))

    def encode(self, x):
        return self.model.encode(x)

    def decode(self, A):
        return A @ self.V + self.offset

    def forward(self, x):
        return self.decode(self.encode(x))


@torch.no_grad()
def variance_explained(sae, x):
    """1 - FVU: one minus the squared error of sae(x) over that of the mean of x. ValueError for an
    encoder without a decoder."""
    if not hasattr(sae, "decode"):
        raise ValueError("the model does not reconstruct: give it a decoder, Decoded(model, x)")
    error = (sae(x).to(x.device) - x).double().square().sum()
    return float(1 - error / (x - x.mean(0)).double().square().sum())


# --- Measures of energies on test inputs ----------------------------------------------------------


def l0(E):
    """Mean number of active units of an input."""
    return float((E > 0).sum(-1).double().mean())


def usage(E):
    """On what share of the inputs each unit is active; a dead unit, on none."""
    return (E > 0).double().mean(0)


@torch.no_grad()
def redundancy(E):
    """||Corr - I||_F^2; NaN if fewer than two units vary. [P, 4]"""
    return float(decorrelation_loss(E.double())) if (E.var(0) > 0).sum() > 1 else math.nan


@torch.no_grad()
def responsibility_entropy(E):
    """Mean entropy of the responsibilities for an input, in nats. [P, 4]"""
    return float(torch.special.entr(responsibilities(E.double())).sum(-1).mean())
