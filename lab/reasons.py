"""Why Wᵀ is a decoder: the forces on a unit, their balance, and the optimiser's currency."""

from copy import deepcopy
from functools import partial

import numpy as np
import pandas as pd
import torch

import helpers as h
from lab import methods, runs, tables
from lab.training import side_by_side

# --- Forces: minus the gradient, over 2 lambda B / 128 ------------------------------------------


def pull(model, loss, x, lam):
    """Force of a loss on W (K, D) and on b (K,), by autograd."""
    gradients = torch.autograd.grad(loss(model, x), (model.W, model.b))
    return [-128 / len(x) / (2 * lam) * g for g in gradients]


def slope(sparsity, E):
    """p_ij = d sparsity / dE_ij, (B, K): of the log-sum-exp, the responsibilities."""
    E = E.detach().requires_grad_()
    return torch.autograd.grad(sparsity(E), E)[0]


@torch.no_grad()
def forces(model, x, lam, p, noise=1e-3):
    """What acts on W_j under the log-determinant and a price of slope p (B, K), without decay.

    -> V, M, V_rest, each (K, D), m and f (K,): V_j - M_j - V_rest_j acts on W_j, and f_j on b_j.
    """
    E, n = model.encode(x), len(x)
    active, C = (
        E > 0,
        torch.cov(E.T) + noise * torch.eye(E.shape[1], dtype=E.dtype, device=E.device),
    )
    u = torch.linalg.solve(C, (E - E.mean(0)).T).T / (n - 1)  # a row for each input
    p = active * p * (64 / lam / n)  # each row's part of m
    V, V_rest = u.T @ x, (u * ~active).T @ x  # the least-squares decoder, and the part at rest
    return V, p.T @ x, V_rest, p.sum(0), (u * active - p).sum(0)


def cosines(one, other):
    """Of rows with rows, (K, D) and (K, D) -> (K,)."""
    return torch.nn.functional.cosine_similarity(one, other, dim=1)


def balance(model, x, lam, kappa, sparsity=h.lse_loss, noise=1e-3):
    """Medians over units of what balances in a trained model, and the rows (K, D) to show: a dict
    and a dict."""
    W, p = model.W.detach(), slope(sparsity, model.encode(x))
    V, M, V_rest, m, f = forces(model, x, lam, p, noise)
    step, rest = M + V_rest, V - M - V_rest - kappa * W
    size = V.norm(dim=1)
    found = {
        "cos(W, V)": cosines(W, V),
        "cos(W, V − V_rest)": cosines(W, V - V_rest),
        "cos(W, all)": cosines(W, V - step),
        "|step| / |V|": step.norm(dim=1) / size,
        "cos(step, V)": cosines(step, V),
        "|remainder| / |V|": rest.norm(dim=1) / size,
        "|f| / m": f.abs() / m,
    }
    rows = {"$V_j$": V, "the step": step, r"$\kappa W_j$": kappa * W, "remainder": rest}
    return {name: float(v.nanmedian()) for name, v in found.items()}, rows


def in_float64(model, x, shift=None):
    """Model and inputs in double precision; shift (D,) is added to x, and the code stays."""
    model = deepcopy(model).double()
    if shift is None:
        return model, x.double()
    model.b.data -= model.W.data @ shift.double()
    return model, x + shift.double()


def by_scale(model, x, lam, noise=None, eps=1e-6):
    """1 - s_j - S_j / 2 lambda, (K,): what F_j.W_j + f_j b_j is for any log-sum-exp with these
    volume terms; noise: of the log-determinant, None for the published terms."""
    E = model.encode(x).detach()
    S = 128 * (h.responsibilities(E) * E).mean(0)
    if noise is None:
        s = eps / (E.var(0) + eps)
    else:
        eye = torch.eye(E.shape[1], dtype=E.dtype, device=E.device)
        s = noise * torch.linalg.inv(torch.cov(E.T) + noise * eye).diagonal()
    return 1 - s - S / (2 * lam)


def growth(model, x, lam, bias=1.0):
    """Decay c_j of a model without a prior, as it acts under SGD with b at `bias` times the rate:
    medians over units {"c, measured"; "c, predicted"; "|f| / m", measured; and predicted}, and how
    measured and predicted c correlate over units."""
    W, b = model.W.detach(), model.b.detach()
    F, f = pull(model, partial(h.published_loss, lam=lam), x, lam)
    power = W.square().sum(1)
    c = by_scale(model, x, lam) / (power + b.square() / bias)
    E = model.encode(x).detach()
    m = (h.responsibilities(E) * (E > 0)).mean(0) * (64 / lam)
    found = {"c, measured": (F * W).sum(1) / power, "c, predicted": c}
    found |= {"|f| / m, measured": f.abs() / m, "|f| / m, predicted": (c * b / bias).abs() / m}
    same = float(torch.corrcoef(torch.stack([(F * W).sum(1) / power, c]))[0, 1])
    return {name: float(v.median()) for name, v in found.items()} | {"correlation of c": same}


# --- Currencies: the same model, read by W times something ------------------------------------


def read_by(model, scale):
    """The model's code with the rows W * scale, scale (K, D) or (D,), as its decoder."""
    return h.with_decoder(model, None, lambda m, _: (m.W * scale, torch.zeros_like(m.W[0])))


@torch.no_grad()
def shares(model, x, x_test, scales):
    """Of the variance that the solved decoder explains, how much W * scale does: {name: share}
    for scales {name: (K, D) or (D,)}; and "l0"."""
    moments = h.code_moments(model, x)

    def explained(reader, decoder):
        found = h.with_decoder(reader, x, partial(decoder, moments=moments))
        return h.variance_explained(found, x_test)

    solved = explained(model, h.fit_decoder)
    found = {n: explained(read_by(model, s), h.transpose_decoder) for n, s in scales.items()}
    return {n: v / solved for n, v in found.items()} | {"l0": h.l0(model.encode(x_test))}


def gradient_size(model, loss, x, batches=100):
    """Root mean square of the gradient of W over the first minibatches of 128 rows, (K, D)."""
    rows = x[: batches * 128].split(128)
    squares = (torch.autograd.grad(loss(model, part), model.W)[0].square() for part in rows)
    return (sum(squares) / len(rows)).sqrt()


def basis(x, inputs):
    """The columns (D, D) on which x is written for "rotated" and "principal axes", else None."""
    if inputs == "rotated":
        some = torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(0))
        return torch.linalg.qr(some)[0].to(x)
    return tables.principal_axes(x) if inputs == "principal axes" else None


def run_cases(x, x_test, mean, K, kappa, seeds, epochs):
    """Train `methods.cases` on all inputs, and `methods.decays`; read them by W and in currencies.

    -> a table with a row a model: "objective", "optimiser", "bias", "inputs", "lam", "seed", "l0",
    and the shares "as it is", in its "currency", and of controls; and of models without a prior on
    centred pixels, of the first seed, {name: (lambda, model)}.
    """
    found, kept = [], {}
    for inputs in methods.INPUTS:
        Q = basis(x, inputs)
        X, X_test, shift = (t if Q is None else t @ Q for t in (x, x_test, mean))
        chosen = methods.cases(inputs, kappa, shift)
        if inputs == "centred":
            chosen |= methods.decays(K, kappa)
        table, kept = _run_inputs(chosen, X, X_test, K, seeds, epochs)
        found.append(table.assign(inputs=inputs))
        del X, X_test
    return pd.concat(found, ignore_index=True), kept


def _run_inputs(chosen, x, x_test, K, seeds, epochs):
    jobs, moments = [], {}
    for name, method in chosen.items():
        jobs += runs.stacks(name, method, x, K, seeds, epochs=epochs, moments=moments)
    trained = runs.train_all(jobs)

    def row(key):
        (name, setting, seed), model, method = key, trained[key], chosen[key[0]]
        found = dict(zip(("objective", "optimiser", "bias"), name.split(" | ")))
        lam, kappa = setting if isinstance(setting, tuple) else (setting, None)
        scales = {"as it is": 1}
        if kappa:
            found["objective"] = methods.PRIORS[found["objective"]]
        elif kappa == 0:
            own = partial(_own_size, model, partial(method.loss, lam=lam, kappa=0), method.mean, x)
            root = moments[key].sqrt() if key in moments else own()
            scales |= {"currency": root, "of another unit": root.roll(1, 0), "std(x)": x.std(0)}
        found |= {"lam": lam, "seed": seed}
        return found | shares(model, x[:20_000], x_test, scales)

    table = pd.DataFrame(side_by_side(*[partial(row, key) for key in trained]))
    free = [key for key in trained if np.ndim(key[1]) and not key[1][1] and key[2] == seeds[0]]
    return table, {key[0]: (key[1][0], trained[key]) for key in free}


def _own_size(model, loss, mean, x):
    """`gradient_size` on the inputs that the model was trained on."""
    model, x = deepcopy(model), x[:12_800]
    if mean is not None:
        x = x + mean
        model.b.data -= model.W.data @ mean
    return gradient_size(model, loss, x)


# --- What the table of `run_cases` says ----------------------------------------------------------

COLUMNS = {"as it is": "", "currency": "in its currency ", "std(x)": "by std(x) "}
COLUMNS["of another unit"] = "by another unit's "


def in_words(shares):
    """Means over seeds of all shares: a line for each objective and optimiser."""
    shares = shares.fillna({"optimiser": "", "bias": ""})
    for (objective, optimiser), rows in shares.groupby(["objective", "optimiser"], sort=False):
        parts = []
        for (inputs, bias), own in rows.groupby(["inputs", "bias"], sort=False):
            values = own[list(COLUMNS)].mean().dropna()
            told = ", ".join(f"{COLUMNS[column]}{v:.2f}" for column, v in values.items())
            parts.append(f"{inputs}{', fast bias' * (bias == 'fast')} {told}")
        yield ", ".join(filter(None, (objective, optimiser))) + ": " + "; ".join(parts)


def by_case(shares):
    """{(objective, optimiser, inputs, bias): its rows, by seed}."""
    keys = ["objective", "optimiser", "inputs", "bias"]
    return {key: rows.set_index("seed") for key, rows in shares.groupby(keys, sort=False)}


def gains(shares, optimiser, objective="published form"):
    """What reading in the optimiser's currency adds where the mean was not taken out: {inputs: a
    value a seed}."""
    return {
        inputs: list(rows["currency"] - rows["as it is"])
        for (name, how, inputs, _), rows in by_case(shares).items()
        if (name, how) == (objective, optimiser) and inputs != "centred"
    }


def by_bias(shares):
    """What a fast bias adds on centred pixels: {"objective, optimiser": a value a seed}."""
    found, column = by_case(shares), "as it is"
    return {
        ", ".join(how): list(rows[column] - found[*how, inputs, "own"][column])
        for (*how, inputs, bias), rows in found.items()
        if bias == "fast"
    }


def beside_prior(shares):
    """Each case's share, with a fast bias where the mean was taken out and in Adam's currency,
    minus the same objective's with a prior: {"objective, optimiser, inputs": a value a seed}."""
    found, differences = by_case(shares), {}
    for (objective, optimiser, inputs, bias), rows in found.items():
        if objective in methods.PRIORS and bias == ("fast" if inputs == "centred" else "own"):
            prior = methods.PRIORS[objective], optimiser
            held = found.get((*prior, inputs, "own"), found.get((*prior, "raw", "own")))
            final = rows["currency" if optimiser == "Adam" else "as it is"]
            differences[f"{objective}, {optimiser}, {inputs}"] = list(final - held["as it is"])
    return differences


@torch.no_grad()
def picture(model, decoder, x, image, mean):
    """What a decoder, fitted on x, makes of an image (1, D): (D,), with the mean image (D,)."""
    return (h.with_decoder(model, x, decoder)(image) + mean)[0]
