"""The gradient of a loss and the least-squares decoder, as differences of means of inputs."""

from copy import deepcopy

import torch
from torch.nn.functional import cosine_similarity

import helpers as h


def means(model, x, lam, infomax=h.log_det_loss, s=1e-3, mean=0, chunk=4096):
    """Of an encoder and x (N, D), taken as one minibatch, in float64: a dict.

    For the loss lse_loss(E) + lam N / 128 infomax(E), let u_ij be minus half the gradient of
    infomax(E) with respect to E_ij, r_ij the responsibilities, and q = 128 / (2 lam N). Then

    "m_A", "sum_A", "x_A" (K,), (K, D), (K, D): the sum of u_ij over active inputs, of u_ij x_i, and
    their ratio, a mean; "m_R", "sum_R", "x_R": the same with q r_ij for u_ij;
    "gradient" (K, D), "of_bias" (K,): sum_A - sum_R and m_A - m_R, minus the gradients of the loss
    with respect to W and b, times q;
    "V" (K, D): the ridge regression of x on E, (Cov(E) + s I)^-1 Cov(E, x);
    "m_I", "sum_I", "x_I": of inactive inputs, with minus the coefficients of V;
    "negative": of V's coefficients on active inputs, and of minus those on inactive inputs, the
    part that is negative, by size, of all units together;
    "W" (K, D), and "z_A", "z_R", "z_I" (K,), the pre-activation of each unit in its means.

    For infomax = log_det_loss with this s the coefficients of V are the u_ij, so that
    V = m_A (x_A - x_I). Where a bias is at rest, m_A = m_R. mean (D,): the model is one of x, and
    was trained on x + mean, on which it is looked at. Double precision is for one chunk at a time.
    """
    model, mean = deepcopy(model).double(), torch.as_tensor(mean).to(x).double()
    h.shift_bias(model, mean.expand(x.shape[1]))
    W, b = model.W.detach(), model.b.detach()

    def double():
        return (part.double() + mean for part in x.split(chunk))

    def weighted_sum(weights):  # (N, K) -> (K, D)
        return sum(w.T @ part for w, part in zip(weights.split(chunk), double()))

    E = torch.cat([model(part).detach() for part in double()]).requires_grad_()
    u = -torch.autograd.grad(infomax(E), E)[0] / 2
    E = E.detach()
    active, q = E > 0, h.ROWS_OF_LAM / (2 * lam * len(x))
    coefficients = ridge_coefficients(E, s)
    parts = coefficients * active, -coefficients * ~active
    found = {
        "V": weighted_sum(coefficients),
        "W": W,
        "negative": [float(-p.clamp(max=0).sum() / p.abs().sum()) for p in parts],
    }
    for name, weights in {
        "A": u * active,  # an inactive unit learns nothing
        "R": q * h.responsibilities(E) * active,
        "I": parts[1],
    }.items():
        found[f"m_{name}"] = weights.sum(0)
        found[f"sum_{name}"] = weighted_sum(weights)
        found[f"x_{name}"] = found[f"sum_{name}"] / weights.sum(0)[:, None]
        found[f"z_{name}"] = (W * found[f"x_{name}"]).sum(1) + b
    found["gradient"] = found["sum_A"] - found["sum_R"]
    found["of_bias"] = found["m_A"] - found["m_R"]
    return found


def ridge_coefficients(E, s):
    """u (N, K): (Cov(E) + s I)^-1 (E_i - mean) / (N - 1), by which V = u' x."""
    cov = torch.cov(E.T) + s * torch.eye(E.shape[1]).to(E)
    return torch.linalg.solve(cov, (E - E.mean(0)).T).T / (len(E) - 1)


def summary(found):
    """Medians over units of what `means` has found, by which the two directions can be compared."""
    to_R, to_I = found["x_A"] - found["x_R"], found["x_A"] - found["x_I"]
    V, gradient = found["V"], found["gradient"]
    apart = (found["x_R"] - found["x_I"]).norm(dim=1) / to_R.norm(dim=1)
    values = {
        "mean pre-activation $w_j\\cdot x+b_j$ in $\\bar x_A$": found["z_A"],
        "in $\\bar x_R$": found["z_R"],
        "in $\\bar x_I$": found["z_I"],
        "length of $\\bar x_R-\\bar x_I$, relative to $\\bar x_A-\\bar x_R$": apart,
        "cosine of $\\bar x_A-\\bar x_R$ and $\\bar x_A-\\bar x_I$": cosine_similarity(to_R, to_I),
        "cosine of the gradient and $V_j$": cosine_similarity(gradient, V),
        "cosine of the InfoMax gradient and $V_j$": cosine_similarity(found["sum_A"], V),
        "cosine of $w_j$ and $V_j$": cosine_similarity(found["W"], V),
        "cosine of $w_j$ and $\\bar x_A-\\bar x_R$": cosine_similarity(found["W"], to_R),
        "$\\sum r$ over $\\sum u$, which a settled bias makes equal": found["m_R"] / found["m_A"],
    }
    live = found["m_R"] > 0  # a dead unit has no means
    return {name: float(value[live].median()) for name, value in values.items()}
