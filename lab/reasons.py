"""Why Wᵀ is a decoder: the forces on a unit, their balance, and the optimiser's currency."""

from copy import deepcopy
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity

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
    active, C = E > 0, torch.cov(E.T) + noise * torch.eye(E.shape[1]).to(E)
    u = torch.linalg.solve(C, (E - E.mean(0)).T).T / (n - 1)  # a row for each input
    p = active * p * (64 / lam / n)  # each row's part of m
    V, V_rest = u.T @ x, (u * ~active).T @ x  # the least-squares decoder, and the part at rest
    return V, p.T @ x, V_rest, p.sum(0), (u * active - p).sum(0)


def balance(model, x, lam, kappa, sparsity=h.lse_loss):
    """Medians over units of what balances in a trained model, and the rows (K, D) to show: a dict
    and a dict."""
    W, p = model.W.detach(), slope(sparsity, model.encode(x))
    V, M, V_rest, m, f = forces(model, x, lam, p)
    step, rest, size = M + V_rest, V - M - V_rest - kappa * W, V.norm(dim=1)
    found = {
        "cos(W, V)": cosine_similarity(W, V),
        "cos(W, V − V_rest)": cosine_similarity(W, V - V_rest),
        "cos(W, all)": cosine_similarity(W, V - step),
        "|step| / |V|": step.norm(dim=1) / size,
        "cos(step, V)": cosine_similarity(step, V),
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


def by_scale(model, x, lam, eps=1e-6):
    """1 - s_j - S_j / 2 lambda, (K,): what F_j.W_j + f_j b_j is under the published loss."""
    E = model.encode(x).detach()
    s, S = eps / (E.var(0) + eps), 128 * (h.responsibilities(E) * E).mean(0)
    return 1 - s - S / (2 * lam)


def growth(model, x, lam, bias=1.0):
    """Decay c_j of a model without a prior, as it acts under SGD with b at `bias` times the rate:
    medians over units {"c, measured"; "c, predicted"; "|f| / m", measured; and predicted}, and how
    measured and predicted c correlate over units."""
    W, b, E = model.W.detach(), model.b.detach(), model.encode(x).detach()
    F, f = pull(model, partial(h.published_loss, lam=lam), x, lam)
    power = W.square().sum(1)
    measured = (F * W).sum(1) / power
    c = by_scale(model, x, lam) / (power + b.square() / bias)
    m = (h.responsibilities(E) * (E > 0)).mean(0) * (64 / lam)
    found = {"c, measured": measured, "c, predicted": c}
    found |= {"|f| / m, measured": f.abs() / m, "|f| / m, predicted": (c * b / bias).abs() / m}
    same = float(torch.corrcoef(torch.stack([measured, c]))[0, 1])
    return {name: float(v.median()) for name, v in found.items()} | {"correlation of c": same}


# --- Currencies: the same model, read by W times something ------------------------------------


def read_by(model, scale):
    """The model's code with the rows W * scale, scale (K, D) or (D,), as its decoder."""
    return h.with_decoder(model, None, lambda m, _: (m.W * scale, torch.zeros_like(m.W[0])))


@torch.no_grad()
def shares(model, x, x_test, scales):
    """Of the variance that the solved decoder explains, how much W * scale does: {name: share}
    for scales {name: (K, D) or (D,)}; "solved", that variance; and "l0"."""
    moments = h.code_moments(model, x)

    def explained(reader, decoder):
        found = h.with_decoder(reader, x, partial(decoder, moments=moments))
        return h.variance_explained(found, x_test)

    solved = explained(model, h.fit_decoder)
    found = {n: explained(read_by(model, s), h.transpose_decoder) for n, s in scales.items()}
    found = {n: v / solved for n, v in found.items()} | {"solved": solved}
    return found | {"l0": h.l0(model.encode(x_test))}


def gradient_size(model, loss, x, mean=None, batches=100):
    """Root mean square of the gradient of W over the first minibatches of 128 rows, (K, D).

    mean (D,): is added to x, as it was for training, and the code stays.
    """
    model, rows = deepcopy(model), x[: batches * 128]
    if mean is not None:
        rows = rows + mean
        model.b.data -= model.W.data @ mean
    parts = rows.split(128)
    squares = (torch.autograd.grad(loss(model, part), model.W)[0].square() for part in parts)
    return (sum(squares) / len(parts)).sqrt()


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
    data = x, x_test, mean, K, kappa, seeds, epochs
    found = {inputs: _run_inputs(inputs, *data) for inputs in methods.INPUTS}
    parts = [table.assign(inputs=inputs) for inputs, (table, _) in found.items()]
    return pd.concat(parts, ignore_index=True), found["centred"][1]


def _run_inputs(inputs, x, x_test, mean, K, kappa, seeds, epochs):
    """Of `run_cases`, the part on one of `methods.INPUTS`."""
    Q, jobs, moments = basis(x, inputs), [], {}
    x, x_test, mean = (t if Q is None else t @ Q for t in (x, x_test, mean))
    chosen = methods.cases(inputs, kappa, mean)
    chosen |= methods.decays(K, kappa) if inputs == "centred" else {}
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
        elif kappa == 0 or "AdamW" in name:
            own = partial(method.loss, lam=lam, kappa=0)
            adam = key in moments
            root = moments[key].sqrt() if adam else gradient_size(model, own, x, method.mean)
            scales |= {"currency": root, "of another unit": root.roll(1, 0), "std(x)": x.std(0)}
        return found | {"lam": lam, "seed": seed} | shares(model, x[:20_000], x_test, scales)

    table = pd.DataFrame(side_by_side(*[partial(row, key) for key in trained]))
    free = [key for key in trained if np.ndim(key[1]) and not key[1][1] and key[2] == seeds[0]]
    return table, {key[0]: (key[1][0], trained[key]) for key in free}


# --- What the table of `run_cases` says ----------------------------------------------------------


def in_words(shares):
    """Means over seeds, as text: a row for each objective, optimiser and reader. What is no
    currency is shown of the published form under Adam."""
    readers = ["as it is", "currency", "std(x)", "of another unit"]
    others = (shares.objective != "published form") | (shares.optimiser != "Adam")
    shares = shares.assign(**{name: shares[name].mask(others) for name in readers[2:]})
    inputs = shares.inputs + shares.bias.map({"fast": ", fast bias"}).fillna("")
    keys = ["objective", "optimiser", "inputs"]
    long = shares.assign(inputs=inputs).fillna({"optimiser": ""}).melt(keys, readers, "rows by")
    means = long.pivot_table("value", [*keys[:2], "rows by"], "inputs", sort=False)
    return means.map("{:.2f}".format).replace("nan", "–")


def by_case(shares):
    """{(objective, optimiser, inputs, bias): its rows, by seed}."""
    keys = ["objective", "optimiser", "inputs", "bias"]
    return {key: rows.set_index("seed") for key, rows in shares.groupby(keys, sort=False)}


def gains(shares):
    """What reading the published form in Adam's currency adds where the mean was not taken out:
    {inputs: a value a seed}."""
    found = by_case(shares)
    rows = {i: found["published form", "Adam", i, "own"] for i in methods.INPUTS if i != "centred"}
    return {inputs: list(own["currency"] - own["as it is"]) for inputs, own in rows.items()}


def by_bias(shares):
    """What a fast bias adds on centred pixels: {"objective, optimiser": a value a seed}."""
    found = by_case(shares[shares.inputs == "centred"])
    share = {(*how, bias): rows["as it is"] for (*how, _, bias), rows in found.items()}
    return {", ".join(k): list(share[*k, "fast"] - share[*k, "own"]) for k in methods.LAMBDAS}


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
