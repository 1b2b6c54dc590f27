"""Notebook 1: the log-sum-exp without competition; clusters in the plane, a mixture and layers that
look for them, and how many starts find all; and the cost of width, on digits.

Shares of starts are in percent.
"""

import math
from functools import partial

import pandas as pd
import torch

import helpers as h
from lab.decoding import classifier_accuracy
from lab.parallel import measure_each, run_in_parallel

N_POINTS = 1280
RADIUS, DEVIATION = 3, 0.9  # of the circle on which clusters lie, and of each cluster
OTHER_CLUSTERS = {  # options of `make_clusters`
    "six clusters": {"n": 6},
    "seven clusters": {"n": 7},
    "eight clusters": {"n": 8},
    "six, one of them in the middle": {"n": 6, "middle": True},
    "half as wide": {"deviation": DEVIATION / 2},
    "five of unequal sizes": {"shares": [1 / 2, 3 / 16, 1 / 8, 1 / 8, 1 / 16]},
}
FOUND_SHARE = 1 / 5  # of a cluster's points: a unit that finds it is active on more than that


# --- Competition, on or off -----------------------------------------------------------------------

COMPETITION = {"on": True, "off": False}  # as tables say it


def lse_without_competition(E):
    """Return -N log mean_i Z_i, where Z_i = sum_j exp(-E_ij), of energies (..., N, K): the gradient
    is exp(-E_ij) / mean Z, so all inputs have the same denominator."""
    N = E.shape[-2]
    return -N * (torch.logsumexp(-E, dim=(-2, -1)) - math.log(N)).sum()


def loss_of_energies(E, competition=True, lse=1, **weights):
    """Return `helpers.decoder_free_loss` of energies (..., N, K), or the same without
    competition."""
    if competition:
        return h.decoder_free_loss(E, lse, **weights)
    return lse * lse_without_competition(E) + h.decoder_free_loss(E, lse=0, **weights)


def votes_without_competition(E):
    """Return how many votes each input has without competition, Z_i / mean Z, (..., N), of energies
    (..., N, K)."""
    return E.shape[-2] * torch.softmax(torch.logsumexp(-E, dim=-1), dim=-1)


# --- Clusters, and a mixture that looks for them --------------------------------------------------


def make_clusters(n=5, shares=None, middle=False, deviation=DEVIATION):
    """Return points (1280, 2), whose mean is zero, the cluster of each, and the centres (n, 2).

    shares: of the points, of each cluster; by default all are equal. middle: whether the last
    cluster lies in the middle of the others. deviation: of each coordinate of a cluster.
    """
    on_circle = n - middle
    angles = 2 * torch.pi * torch.arange(on_circle) / on_circle
    centres = RADIUS * torch.stack([angles.sin(), angles.cos()], dim=1)
    if middle:
        centres = torch.cat([centres, torch.zeros(1, 2)])
    cluster = torch.arange(N_POINTS) % n
    if shares:
        counts = (torch.tensor(shares) * N_POINTS).round().long()
        counts[-1] = N_POINTS - counts[:-1].sum()
        cluster = torch.arange(n).repeat_interleave(counts)
    noise = torch.randn(N_POINTS, 2, generator=torch.Generator().manual_seed(0))
    points = centres[cluster] + deviation * noise
    return points - points.mean(0), cluster, centres - points.mean(0)


def starting_means(points, n_starts, k=5, seed=0):
    """Return k of the points as means, of each start: (n_starts, k, 2)."""
    order = torch.rand(n_starts, len(points), generator=torch.Generator().manual_seed(seed))
    return points[order.argsort(1)[:, :k]]


def means_find_all(means, centres):
    """Return for each start whether some of its means (n_starts, K, 2) is near each centre."""
    near = torch.cdist(means, centres.expand(len(means), -1, 2).to(means)) < 1
    return near.any(dim=1).all(dim=1)


def mixture_energies(means, x):
    """Return half the squared distances of means (..., K, D) from points x (N, D): (..., N, K)."""
    squared = x.square().sum(1)[:, None] + means.square().sum(-1).unsqueeze(-2)
    return squared / 2 - x @ means.mT


def descent_step(means, x, competition=True):
    """Return means (..., K, D) after one step of gradient descent on the log-sum-exp loss, of size
    1 / sum_i r_ij for mean j; a mean that gets no responsibility stays."""
    means = means.detach().requires_grad_()
    E = mixture_energies(means, x)
    loss = h.lse_loss(E) if competition else lse_without_competition(E)
    gradient, r = torch.autograd.grad(loss, (means, E))  # dL/dE is r
    total = r.sum(-2).unsqueeze(-1)
    return means.detach() - gradient / total.where(total > 0, 1)


def fit_mixture(means, points, competition=True, n_steps=100):
    """Return where the means (..., K, D) end after steps of `descent_step`, which are EM's."""
    return trajectory(descent_step, means, n_steps, points, competition)[-1]


def trajectory(step, means, n_steps, *arguments):
    """Return the means, and where each of the steps leads: (n_steps + 1, ..., K, D)."""
    path = [means]
    for _ in range(n_steps):
        path.append(step(path[-1], *arguments))
    return torch.stack(path)


# --- Layers that look for them --------------------------------------------------------------------


class ManyLayers(torch.nn.Module):
    """Layers of k units in the plane, started as h.Encoder(2, k, seed): E is (layer, N, k).

    They are trained at once, each as if alone: losses add up, and Adam treats each number by
    itself. All see the points in the same order.
    """

    def __init__(self, seeds, k=5):
        super().__init__()
        starts = [h.Encoder(2, k, seed=seed) for seed in seeds]
        self.W = torch.nn.Parameter(torch.stack([layer.W.detach() for layer in starts]))
        self.b = torch.nn.Parameter(torch.stack([layer.b.detach() for layer in starts]))

    def forward(self, x):
        return torch.relu(x @ self.W.mT + self.b.unsqueeze(1))


def train_layers(layers, points, epochs=40, competition=True, **weights):
    """Train `ManyLayers`, or one `helpers.Encoder`, on points, and return them; weights: of
    `loss_of_energies`."""

    def loss(layers, x):
        return loss_of_energies(layers(x), competition, **weights)

    h.fit(layers, loss, points, epochs=epochs, lr=0.03, order_seed=0)  # Adam, minibatches of 128
    return layers.requires_grad_(False)


def active_on_clusters(E, cluster, bound=FOUND_SHARE):
    """Return whether a unit is active on over a share of the points of a cluster, by default a
    fifth, (..., n, K) for energies E (..., N, K)."""
    active = (E > 0).double()
    n = int(cluster.max()) + 1
    shares = [active[..., cluster == c, :].mean(-2) for c in range(n)]
    return torch.stack(shares, dim=-2) > bound


def units_find_all(E, cluster, bound=FOUND_SHARE):
    """Return for each layer of E (layer, N, K) whether it has one unit for each cluster, and each
    unit one cluster, in the sense of `active_on_clusters`."""
    has = active_on_clusters(E, cluster, bound)
    return (has.sum(1) == 1).all(1) & (has.sum(2) == 1).all(1)


# --- Experiment: which starts find all clusters ---------------------------------------------------


def share_found_by_mixtures(competition, seed, n_starts, **clusters):
    """Return the share of random starts from which a mixture finds all clusters, a dict; clusters:
    options of `make_clusters`."""
    points, _, centres = make_clusters(**clusters)
    means = starting_means(points, n_starts, len(centres), seed)
    ends = fit_mixture(means, points, competition)
    return {"find all": 100 * float(means_find_all(ends, centres).double().mean())}


def share_found_by_layers(competition, seed, n_starts, clusters=None, epochs=40, **weights):
    """Return the share of starts from which a layer finds all clusters, a dict, also with a third
    as the bound. Group `seed` of n_starts starts has the seeds from seed * n_starts on. clusters:
    of `make_clusters`; weights: of the terms of the loss."""
    points, cluster, centres = make_clusters(**(clusters or {}))
    seeds = range(seed * n_starts, (seed + 1) * n_starts)
    layers = ManyLayers(seeds, len(centres))
    E = train_layers(layers, points, epochs, competition, **weights)(points)
    found = {
        "find all": units_find_all(E, cluster),
        "at a third": units_find_all(E, cluster, 1 / 3),
    }
    return {name: 100 * float(which.double().mean()) for name, which in found.items()}


def starts_that_find_all(losses, seeds, n_starts, many_epochs):
    """Return which share of starts "find all" clusters: a DataFrame with a row for each model, with
    competition "on" and "off", and each group of n_starts starts.

    Models are a mixture, layers with the losses A to D, {letter: weights of its terms}, and C on
    other clusters and after many epochs. seeds: of the groups; what is a side issue has the first
    group alone.
    """
    first, C = seeds[:1], losses["C"]
    searches = {
        "mixture": (share_found_by_mixtures, seeds, {}),
        "A": (share_found_by_layers, first, losses["A"]),
        "B": (share_found_by_layers, seeds, losses["B"]),
        "C": (share_found_by_layers, seeds, C),
        "D": (share_found_by_layers, first, losses["D"]),
    }
    half = "half as wide"
    searches[f"mixture, {half}"] = share_found_by_mixtures, first, OTHER_CLUSTERS[half]
    for name, clusters in OTHER_CLUSTERS.items():
        searches[f"C, {name}"] = share_found_by_layers, first, C | {"clusters": clusters}
    searches[f"C, {many_epochs} epochs"] = share_found_by_layers, first, C | {"epochs": many_epochs}
    jobs = {}
    for model, (search, groups, options) in searches.items():
        for switch in ["on"] if model in ("A", "D") else COMPETITION:
            for seed in groups:
                start = partial(search, COMPETITION[switch], seed, n_starts, **options)
                jobs[model, switch, seed] = start
    keys = [*reversed(jobs)]  # the longest first
    results = run_in_parallel(lambda key: jobs[key](), keys, "starts")
    index = pd.MultiIndex.from_tuples(keys, names=["model", "competition", "seed"])
    return pd.DataFrame(results, index)[::-1]


def ends_of_one_start(losses, mixture_start, layer_start):
    """Return where a mixture and layers B and C end, with competition and without: {(model, "on" or
    "off"): means or layer}. mixture_start: of `starting_means`; layer_start: a seed."""
    points, _, _ = make_clusters()
    means = starting_means(points, mixture_start + 1)[-1]
    ends = {}
    for switch, competition in COMPETITION.items():
        ends["mixture", switch] = fit_mixture(means, points, competition)
        for letter in "BC":
            layer = h.Encoder(2, 5, seed=layer_start)
            options = {"competition": competition, **losses[letter]}
            ends[letter, switch] = train_layers(layer, points, **options)
    return ends


# --- Experiment: the cost of width, on digits -----------------------------------------------------


def compare_on_digits(losses, images, epochs):
    """Return what becomes of layers of 64 units, trained on digits with each of {name: loss of
    energies}: a DataFrame. images: x_train, y_train, x_test and y_test."""
    train = partial(_train_and_measure, images=images, epochs=epochs)
    return measure_each(
        {(name, 0): loss for name, loss in losses.items()}, train, ["loss", "seed"], "digits"
    )


def _train_and_measure(loss, images, epochs):
    x, y, x_test, y_test = images
    layer = h.Encoder(x.shape[1], 64)
    h.fit(layer, lambda layer, x: loss(layer(x)), x, epochs=epochs)
    with torch.no_grad():
        E, E_test = layer(x), layer(x_test)
    redundancy = h.redundancy(E_test)
    return {
        "L0": h.l0(E_test),
        "dead units": h.dead_units(E_test),
        "redundancy": redundancy,
        "eigenvalue": (redundancy / 64) ** 0.5,
        "classifier": classifier_accuracy(E, y, E_test, y_test),
    }
