"""The gradient of the revised loss, term by term, and how the terms balance in a trained model."""

from copy import deepcopy

import torch
from torch.nn.functional import cosine_similarity

import helpers as h
from lab.methods import revised_loss


def in_float64(model, x, mean=0):
    """A copy of a model in float64, and x + mean; it gives the same energies for x + mean as the
    model does for x."""
    model = deepcopy(model).double()
    if torch.is_tensor(mean):
        model.b.data -= model.W.data @ mean.double()
    return model, x.to(torch.float64, copy=True).add_(mean)


def gradients(model, x, lam, kappa, penalty=h.lse_loss):
    """Minus the gradients of `methods.revised_loss` by autograd, over 2 lam N / 128: of W, of b."""
    loss = revised_loss(model, x, lam, kappa, penalty)
    scale = -h.BATCH_SIZE / (2 * lam * len(x))
    return [scale * g for g in torch.autograd.grad(loss, (model.W, model.b))]


def terms(model, x, lam, penalty=h.lse_loss, s=1e-3):
    """The terms of these gradients, for x (N, D) as one minibatch: a dict.

    Minus the gradient of W_j is V_j - inactive_j - penalty_j - kappa W_j, and that of b_j is
    u_active_j - m_j:
    "V" (K, D): the least-squares decoder, sum_i u_ij x_i;
    "inactive" (K, D): its part from the inputs on which the unit is inactive;
    "penalty" (K, D): 128 / (2 lam N) sum_i p_ij x_i over active inputs, p the gradient of the
    penalty, which is the responsibility for the log-sum-exp; "m" (K,): the same with 1 for x_i;
    "u_active" (K,): the sum of u_ij over active inputs, which is minus that over the others.
    """
    E = model.encode(x).detach().requires_grad_()
    p = torch.autograd.grad(penalty(E), E)[0]
    E = E.detach()
    active, n = E > 0, len(x)
    cov = torch.cov(E.T) + s * torch.eye(E.shape[1]).to(E)
    u = torch.linalg.solve(cov, (E - E.mean(0)).T).T / (n - 1)  # (N, K)
    p = active * p * (h.BATCH_SIZE / (2 * lam * n))
    return {
        "V": u.T @ x,
        "inactive": (u * ~active).T @ x,
        "penalty": p.T @ x,
        "m": p.sum(0),
        "u_active": (u * active).sum(0),
    }


def measure(model, x, lam, kappa, mean=0):
    """The `terms` of a trained model for x + mean, in float64, and their `summary`.

    -> (terms, summary, largest difference to autograd, of W and of b).
    """
    model, x = in_float64(model, x, mean)
    parts = terms(model, x, lam)
    on_W, on_b = gradients(model, x, lam, kappa)
    right = parts["V"] - parts["inactive"] - parts["penalty"] - kappa * model.W.detach()
    error = max((right - on_W).abs().max(), (parts["u_active"] - parts["m"] - on_b).abs().max())
    return parts, summary(model, parts, kappa), float(error)


def summary(model, parts, kappa):
    """Medians over units of lengths and cosines of the `terms` of a trained model: a dict."""
    W, V, inactive, penalty = model.W.detach(), parts["V"], parts["inactive"], parts["penalty"]
    bracket, length = inactive + penalty, parts["V"].norm(dim=1)
    cosine = cosine_similarity(bracket, V)
    part = bracket.norm(dim=1) / length
    remainder = V - bracket - kappa * W
    # The coefficients of the bracket: m over active inputs, minus u_active over the others.
    left = (parts["u_active"] - parts["m"]).abs() / parts["m"]
    found = {
        "length of the part from inactive inputs, relative to V": inactive.norm(dim=1) / length,
        "length of the log-sum-exp's part, relative to V": penalty.norm(dim=1) / length,
        "length of the bracket, relative to V": part,
        "cosine of the bracket and V": cosine,
        "the bracket shortens V by": part * cosine,
        "and turns it, moving it across by": part * (1 - cosine.square()).sqrt(),
        "cosine of w and V": cosine_similarity(W, V),
        "cosine of w and the right-hand side": cosine_similarity(W, V - bracket),
        "length of kappa w, relative to V": kappa * W.norm(dim=1) / length,
        "length of the remainder, relative to V": remainder.norm(dim=1) / length,
        "sum of the bracket's coefficients, relative to m": left,
    }
    return {name: float(value.nanmedian()) for name, value in found.items()}
