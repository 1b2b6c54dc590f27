"""The ablation of notebook 2: its losses A to D, with competition and without, and their measures.

Shares of inputs and of units are in percent.
"""

import copy
import math
from functools import partial
from itertools import product
from typing import NamedTuple

import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import roc_auc_score

import helpers as h
from lab.decoding import classifier_accuracy, with_own_and_best_decoder
from lab.parallel import run_in_parallel
from lab.plane import (
    COMPETITION,
    loss_of_energies,
    lse_without_competition,
    votes_without_competition,
)


class Loss(NamedTuple):
    """A loss of the ablation: its name, the weights of its terms (those of
    `helpers.decoder_free_loss`), what the author's plan expects of it, and the paper's numbers."""

    name: str
    weights: dict
    expected: str
    paper: dict


LOSSES = {  # numbers: §4.2 and §4.3
    "A": Loss(
        "log-sum-exp",
        {"lse": 1, "variance": 0, "decorrelation": 0},
        "collapse (one component wins)",
        {"dead units": 64},
    ),
    "B": Loss(
        "+ variance",
        {"lse": 1, "variance": 1, "decorrelation": 0},
        "no dead units, some redundancy",
        {"dead units": 0, "redundancy": "1,875"},
    ),
    "C": Loss(
        "+ decorrelation",
        {"lse": 1, "variance": 1, "decorrelation": 1},
        "stable, diverse",
        {"dead units": 0, "redundancy": 29, "L0": 17.2, "classifier": 93.4},
    ),
    "D": Loss(
        "without log-sum-exp",
        {"lse": 0, "variance": 1, "decorrelation": 1},
        "no EM structure, different behavior",
        {"dead units": 0, "redundancy": 28},
    ),
}


def as_table(column, rows, names):
    """Return a DataFrame of one column from {key: number}; names: of the parts of a key."""
    index = pd.MultiIndex.from_tuples(rows, names=names)
    return pd.DataFrame({column: [*rows.values()]}, index)


def plan_table():
    """Return the terms of each loss and what the author's plan expects of it, as text: a DataFrame
    with a row for each letter."""
    terms = {"log-sum-exp": "lse", "variance": "variance", "decorrelation": "decorrelation"}
    columns = {
        heading: ["✓" if loss.weights[term] else "" for loss in LOSSES.values()]
        for heading, term in terms.items()
    }
    columns["expected by the author's plan"] = [loss.expected for loss in LOSSES.values()]
    return pd.DataFrame(columns, index=[*LOSSES])


# --- Training -------------------------------------------------------------------------------------


def train_layer(loss, x, n_units, seed, epochs, noise=0, **options):
    """Train the paper's layer on loss(E), and return it and the mean loss of each epoch.

    noise : standard deviation of the noise added to W at the start, relative to that of W
    options : of `helpers.fit`
    """
    layer = h.Encoder(x.shape[1], n_units, seed=seed)
    rng = torch.Generator().manual_seed(1000 + seed)
    layer.W.data += noise * layer.W.data.std() * torch.randn(layer.W.shape, generator=rng)

    def loss_of_layer(layer, x):
        return loss(layer(x))

    losses = h.fit(layer, loss_of_layer, x, epochs=epochs, **options)
    return layer.requires_grad_(False), losses


def layers_by_epoch(kept_epochs, loss, x, n_units, seed):
    """Return {epoch: the layer after it} for some epochs of one training by `train_layer`."""
    layers = {}
    n_done = 0

    def keep(layer):
        nonlocal n_done
        n_done += 1
        if n_done in kept_epochs:
            layers[n_done] = copy.deepcopy(layer).requires_grad_(False)

    train_layer(loss, x, n_units, seed, max(kept_epochs), after_epoch=keep)
    return layers


def ablation_loss(letter, competition=True, **weights):
    """Return loss(E) of one of `LOSSES`, with competition or without; weights: of terms, in place
    of its own."""
    return partial(loss_of_energies, competition=competition, **LOSSES[letter].weights | weights)


def train_ablation(kept_epochs, competition, seeds, x, n_units):
    """Return {(letter, competition, seed): {epoch: layer}}.

    kept_epochs : {letter of a loss: the epochs after which its layers are kept}
    competition : "on" or "off"
    """
    keys = [(letter, competition, seed) for letter in kept_epochs for seed in seeds]
    keys.sort(key=lambda key: -max(kept_epochs[key[0]]))  # long ones first

    def train(key):
        letter, competition, seed = key
        loss = ablation_loss(letter, COMPETITION[competition])
        return layers_by_epoch(kept_epochs[letter], loss, x, n_units, seed)

    title = f"{', '.join(kept_epochs)}, competition {competition}"
    trained = dict(zip(keys, run_in_parallel(train, keys, title)))
    return {key: trained[key] for key in sorted(keys)}


# --- What is measured of a layer ------------------------------------------------------------------


@torch.no_grad()
def ablation_scores(layer, x, y, x_test, y_test):
    """Return what is measured of a layer on x_test (M, D), a dict: "dead units", active on no
    input; those of "low variance", below .01, which the paper calls dead; "redundancy"; "L0";
    "entropy" of responsibilities; "spread of Z"; the share of inputs with "less than a tenth of a
    vote" if competition is off; and the accuracy of a "classifier", trained on x (N, D) and labels
    y (N,)."""
    E = layer(x_test)
    return {
        "dead units": h.dead_units(E),
        "low variance": int((E.double().var(0) < 0.01).sum()),
        "redundancy": h.redundancy(E),
        "L0": h.l0(E),
        "entropy": responsibility_entropy(E),
        "spread of Z": spread_of_Z(E),
        "less than a tenth of a vote": inputs_without_vote(votes_without_competition(E)),
        "classifier": classifier_accuracy(layer(x), y, E, y_test),
    }


def responsibility_entropy(E):
    """Return the mean entropy of the responsibilities for an input, in nats (§4)."""
    return float(torch.special.entr(h.responsibilities(E.double())).sum(-1).mean())


def spread_of_Z(E):
    """Return the standard deviation over inputs of Z_i = sum_j exp(-E_ij), in percent of its
    mean."""
    Z = torch.exp(-E).sum(1)
    return 100 * float(Z.std() / Z.mean())


def inputs_without_vote(votes):
    """Return the share of inputs that have less than a tenth of a vote, of votes (N,)."""
    return 100 * float((votes < 0.1).double().mean())


def unit_agreement(A, B):
    """Pair the units of A (N, K) one to one with those of B, so that correlations are highest on
    average, and return this average; that of a constant unit is 0."""
    K = A.shape[1]
    R = h.correlation(torch.cat([A, B], 1).double())[:K, K:].numpy()
    units, pairs = linear_sum_assignment(R, maximize=True)
    return float(R[units, pairs].mean())


@torch.no_grad()
def costs_in_minibatches(layer, x, batch_size=128):
    """Return what competition and decorrelation cost a layer in a minibatch of x, means: a dict.

    "competition costs" is -sum_i log Z_i + N log mean Z, exactly; "by the expansion", N/2 Var(Z)
    over the square of mean Z; "of single units", the part of this in which j = k; and
    "decorrelation costs".
    """
    rows = []
    for part in x.split(batch_size)[: len(x) // batch_size]:
        E = layer(part).double()
        e = torch.exp(-E)
        scale = batch_size / 2 / e.sum(1).mean().square()
        rows.append(
            {
                "competition costs": float(h.lse_loss(E) - lse_without_competition(E)),
                "by the expansion": float(scale * e.sum(1).var()),
                "of single units": float(scale * e.var(0).sum()),
                "decorrelation costs": float(h.decorrelation_loss(E)),
            }
        )
    return pd.DataFrame(rows).mean().to_dict()


# --- Competition and decorrelation ----------------------------------------------------------------


def redundancy_by_dose(doses, early, x, x_test, n_units, seeds, epochs):
    """Return the redundancy of layers at several weights of decorrelation, with competition and
    without: a DataFrame of "redundancy" by decorrelation, competition and seed.

    early : B and C, which have weights of 0 and 1, after these epochs, {(letter, competition,
        seed): layer}
    """
    keys = list(product([dose for dose in doses if dose not in (0, 1)], COMPETITION, seeds))

    def train(key):
        dose, competition, seed = key
        loss = ablation_loss("C", COMPETITION[competition], decorrelation=dose)
        return h.redundancy(train_layer(loss, x, n_units, seed, epochs)[0](x_test))

    rows = dict(zip(keys, run_in_parallel(train, keys, "weights of decorrelation")))
    for dose, letter in {0: "B", 1: "C"}.items():
        for competition, seed in product(COMPETITION, seeds):
            E = early[letter, competition, seed](x_test)
            rows[dose, competition, seed] = h.redundancy(E)
    return as_table("redundancy", rows, ["decorrelation", "competition", "seed"]).sort_index()


def agreement_after_changes(early, x, x_test, n_units, seeds, epochs):
    """Return how well units agree with those of B and C after a change of their training: a
    DataFrame of "agreement" by change, loss and seed.

    Changes: competition off; and as rulers 0.1% of noise in the weights at the start, and another
    order of the inputs. early : B and C after these epochs, {(letter, competition, seed): layer}
    """
    rulers = {"0.1% of noise": {"noise": 0.001}, "another order": {}}
    keys = list(product(rulers, "BC", seeds))

    def train(key):
        change, letter, seed = key
        options = rulers[change] or {"order_seed": seed + 100}
        return train_layer(ablation_loss(letter), x, n_units, seed, epochs, **options)[0]

    changed = {
        ("competition off", letter, seed): early[letter, "off", seed]
        for letter, seed in product("BC", seeds)
    }
    changed |= dict(zip(keys, run_in_parallel(train, keys, "agreements")))
    rows = {}
    for (change, letter, seed), layer in changed.items():
        E = early[letter, "on", seed](x_test)
        rows[change, letter, seed] = unit_agreement(layer(x_test), E)
    return as_table("agreement", rows, ["change", "loss", "seed"])


def agreement_without_competition(layers, x_test, seeds):
    """Return how well units of B and C agree with competition and without: a DataFrame of
    "agreement" by loss and seed. layers: {(letter, competition, seed): layer}."""
    rows = {}
    for letter, seed in product("BC", seeds):
        on, off = (layers[letter, competition, seed](x_test) for competition in COMPETITION)
        rows[letter, seed] = unit_agreement(off, on)
    return as_table("agreement", rows, ["loss", "seed"])


def loss_without_price(E):
    """Return C less the log-sum-exp without competition: its other part, competition, remains."""
    return h.decoder_free_loss(E) - lse_without_competition(E)


def price_and_competition(early, x, x_test, n_units, seeds, epochs):
    """Return L0 with each of the two parts of the log-sum-exp on and off, beside variance and
    decorrelation: a DataFrame of "L0" by price, competition and seed.

    early : C, with competition "on" and "off", and D after these epochs, {(letter, competition,
        seed): layer}
    """

    def train(seed):
        return train_layer(loss_without_price, x, n_units, seed, epochs)[0]

    rows = {}
    for seed, layer in zip(seeds, run_in_parallel(train, seeds, "competition without price")):
        rows["price on", "on", seed] = h.l0(early["C", "on", seed](x_test))
        rows["price on", "off", seed] = h.l0(early["C", "off", seed](x_test))
        rows["price off", "on", seed] = h.l0(layer(x_test))
        rows["price off", "off", seed] = h.l0(early["D", "on", seed](x_test))
    return as_table("L0", rows, ["price", "competition", "seed"])


@torch.no_grad()
def layer_as_on_the_page(x, x_test, n_units=25):
    """Return a layer of C trained as on the page `on_digits.html`, a test digit (D,), and the digit
    decoded by W^T and by the best linear decoder, {title: (D,)}."""
    x = x[:5000]
    with torch.enable_grad():
        layer, _ = train_layer(ablation_loss("C"), x, n_units, seed=0, epochs=36, lr=0.004)
    digit = x_test[4]
    decoded = {
        "by $W^\\top$": layer(digit) @ layer.W,
        "by a fitted decoder": with_own_and_best_decoder(layer, x)[1].reconstruct(digit[None])[0],
    }
    return layer, digit, decoded


# --- How sparse the code is -----------------------------------------------------------------------

# What is changed: units, inputs of a minibatch, weights of variance and decorrelation
BALANCE_SETTINGS = {
    "nothing": [(64, 128, 1, 1)],
    "units": [
        (32, 128, 1, 1),
        (128, 128, 1, 1),
        (16, 128, 1, 1),
        (256, 128, 1, 1),
        (512, 128, 1, 1),
    ],
    "inputs": [(64, 256, 1, 1), (64, 64, 1, 1), (64, 512, 1, 1)],
    "weight of both": [(64, 128, 1 / 4, 1 / 4), (64, 128, 4, 4), (64, 128, 16, 16)],
    "units, with weight N/2K": [
        (128, 128, 1 / 2, 1 / 2),
        (256, 128, 1 / 4, 1 / 4),
        (32, 128, 2, 2),
        (16, 128, 4, 4),
    ],
    "decorrelation alone": [(64, 128, 1, 1 / 4), (64, 128, 1, 4)],
    "512 units, no decorrelation": [(512, 128, 1, 0)],
}


def predicted_share_active(n_units, batch_size, weight=1):
    """Return the share of active units, 1 - sqrt(N / (N + 2 lambda K)) in percent, at which the
    price that the log-sum-exp puts on them is what the variance term pays for them.

    n_units : K; batch_size : N; weight : lambda. Only N / (lambda K) counts.
    """
    return 100 * (1 - (batch_size / (batch_size + 2 * weight * n_units)) ** 0.5)


def shares_active(settings, x, x_test, seed, epochs):
    """Return the "share active" of units on an input, and what the "formula" says: a DataFrame with
    a row for each setting. settings: {what is changed: several}, as `BALANCE_SETTINGS`."""
    keys = [(changed, *setting) for changed, some in settings.items() for setting in some]
    keys.sort(key=lambda key: -key[1] / key[2])  # long ones first

    def train(key):
        _, n_units, batch_size, variance, decorrelation = key
        loss = ablation_loss("C", variance=variance, decorrelation=decorrelation)
        layer, _ = train_layer(loss, x, n_units, seed, epochs, batch_size=batch_size)
        return 100 * h.l0(layer(x_test)) / n_units

    rows = dict(zip([(*key, seed) for key in keys], run_in_parallel(train, keys, "how sparse")))
    names = ["changed", "units", "inputs", "variance", "decorrelation", "seed"]
    table = as_table("share active", rows, names)
    formula = [predicted_share_active(*key[1:4]) for key in keys]
    return table.assign(formula=formula).loc[[*settings]]


def outward_pushes(layer, x, batch_size=128):
    """Return how hard each term of the loss pushes boundaries of units outward: its gradient by b
    times the length of w, a mean over minibatches of x and the median over units. A dict."""
    terms = {
        "log-sum-exp": h.lse_loss,
        "variance": h.variance_loss,
        "decorrelation": h.decorrelation_loss,
    }
    layer = copy.deepcopy(layer).requires_grad_()
    parts = x.split(batch_size)[: len(x) // batch_size]
    total = dict.fromkeys(terms, 0)
    for part in parts:
        E = layer(part)
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(term(E), layer.b, retain_graph=True)
            total[name] = total[name] + gradient / len(parts)
    size = layer.W.detach().norm(dim=1)
    return {name: float((push * size).quantile(0.5)) for name, push in total.items()}


# --- Strangers ------------------------------------------------------------------------------------


def strange_inputs(x_test, clothes=None):
    """Return {name: inputs (N, D)} that are no digits: the pixels of x_test (M, D) shuffled, or all
    images with their pixels in one other order, or mirrored; and clothes, if there are some."""

    def order_of(n):
        return torch.randperm(n, generator=torch.Generator().manual_seed(0))

    side = round(x_test.shape[1] ** 0.5)
    inputs = {
        "noise": x_test.flatten()[order_of(x_test.numel())].view_as(x_test),
        "pixels in another order": x_test[:, order_of(x_test.shape[1])],
        "mirrored": x_test.unflatten(1, (side, side)).flip(2).flatten(1),
    }
    return inputs if clothes is None else inputs | {"clothes": clothes}


@torch.no_grad()
def lse_of_inputs(model, inputs):
    """Return the log-sum-exp loss of each of {name: inputs (N, D)}, of energies model(inputs)."""
    return {name: -torch.logsumexp(-model(part), 1) for name, part in inputs.items()}


def auroc_of_strangers(losses):
    """Return how well the log-sum-exp loss tells strangers from digits, as the area under the ROC
    curve: a DataFrame of "AUROC" by inputs, model and seed. losses: {(model, seed): {"digits":
    losses (N,), and of strangers}}."""
    rows = {}
    for (model, seed), of_inputs in losses.items():
        for name, of_strangers in of_inputs.items():
            if name != "digits":
                is_strange = [0] * len(of_inputs["digits"]) + [1] * len(of_strangers)
                both = torch.cat([of_inputs["digits"], of_strangers])
                rows[name, model, seed] = roc_auc_score(is_strange, both)
    return as_table("AUROC", rows, ["inputs", "model", "seed"])


# --- The fall of the loss -------------------------------------------------------------------------


def train_by_sgd(x, n_units, seed, epochs):
    """Return {(rate, units): (layer, losses)} of C, trained by plain SGD at the paper's rates, and
    with a half and a quarter of the units."""
    until = {(rate, n_units): epochs for rate in (0.0001, 0.001, 0.01, 0.1)}
    until |= {(0.01, n_units // part): min(epochs, 60) for part in (2, 4)}

    def train(setting):
        rate, units = setting
        options = {"optimizer": torch.optim.SGD, "lr": rate}
        return train_layer(ablation_loss("C"), x, units, seed, until[setting], **options)

    return dict(zip(until, run_in_parallel(train, until, "SGD")))


def fall_statistics(by_sgd, x_test, seed, last=20):
    """Return how the losses of `train_by_sgd` fall from epoch to epoch: a DataFrame by rate, units
    and seed.

    "living units"; the "epoch of convergence"; and the "slope", the fall of the loss in an epoch,
    times the epoch, over the number of living units, a mean of the last epochs.
    """
    rows = {}
    for (rate, units), (layer, losses) in by_sgd.items():
        living = units - h.dead_units(layer(x_test))
        t = torch.arange(1, len(losses))
        rows[rate, units, seed] = {
            "living units": living,
            "epoch of convergence": convergence_epoch(losses),
            "slope": float((-losses.diff() * t)[-last:].mean()) / living if living else math.nan,
        }
    return pd.DataFrame.from_dict(rows, "index").rename_axis(["rate", "units", "seed"])


def convergence_epoch(losses, tolerance=1):
    """Return the first of five epochs in a row in which losses (T,) change by less than the
    tolerance, counted from 0, as in the paper's script; NaN if there is none."""
    small = (losses.diff().abs() < tolerance).tolist()  # the first change is that of epoch 1
    for epoch in range(1, len(small) - 3):
        if all(small[epoch - 1 : epoch + 4]):
            return float(epoch)
    return math.nan
