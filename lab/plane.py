"""Clusters in the plane, a mixture and layers that look for them, and how many starts find all."""

import torch

import helpers as h

N_POINTS = 1280
RADIUS, DEVIATION = 3, 0.9  # of the circle on which clusters lie, and of each cluster


def make_clusters(n=5, shares=None, middle=False):
    """Return points (1280, 2), whose mean is zero, the cluster of each, and the centres (n, 2).

    shares: of the points, of each cluster; by default all are equal. middle: whether the last
    cluster lies in the middle of the others.
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
    points = centres[cluster] + DEVIATION * noise
    return points - points.mean(0), cluster, centres - points.mean(0)


def starting_means(points, n_starts, k=5, seed=0):
    """Return k of the points as means, of each start: (n_starts, k, 2)."""
    order = torch.rand(n_starts, len(points), generator=torch.Generator().manual_seed(seed))
    return points[order.argsort(1)[:, :k]]


def means_find_all(means, centres):
    """Return for each start whether some of its means (n_starts, K, 2) is near each centre."""
    near = torch.cdist(means, centres.expand(len(means), -1, 2).to(means)) < 1
    return near.any(dim=1).all(dim=1)


def energies(means, x):
    """Return half the squared distances of means (..., K, D) from points x (N, D): (..., N, K)."""
    squared = x.square().sum(1)[:, None] + means.square().sum(-1).unsqueeze(-2)
    return squared / 2 - x @ means.mT


def descent_step(means, x, competition=True):
    """Return means (..., K, D) after one step of gradient descent on the log-sum-exp loss, of size
    1 / sum_i r_ij for mean j."""
    means = means.detach().requires_grad_()
    E = energies(means, x)
    gradient, r = torch.autograd.grad(h.lse_loss(E, competition), (means, E))  # dL/dE is r
    return means.detach() - gradient / r.sum(-2).unsqueeze(-1)


def trajectory(step, means, n_steps, *arguments):
    """Return the means, and where each of the steps leads: (n_steps + 1, ..., K, D)."""
    path = [means]
    for _ in range(n_steps):
        path.append(step(path[-1], *arguments))
    return torch.stack(path)


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


def train_many_layers(points, seeds, k=5, epochs=40, **weights):
    """Return trained `ManyLayers`, and on the way their W (step, layer, k, 2) and b (step, layer,
    k); weights: of `helpers.decoder_free_loss`."""
    layers = ManyLayers(seeds, k)
    path = []

    def loss(layers, x):
        path.append((layers.W.detach().clone(), layers.b.detach().clone()))
        return h.decoder_free_loss(layers(x), **weights)

    h.fit(layers, loss, points, epochs=epochs, lr=0.03)  # Adam, minibatches of 128
    path.append((layers.W.detach(), layers.b.detach()))
    W, b = (torch.stack(steps) for steps in zip(*path))
    return layers, W, b


def active_on_clusters(E, cluster):
    """Return whether a unit is active on over a third of the points of a cluster, (..., n, K) for
    energies E (..., N, K)."""
    active = (E > 0).double()
    n = int(cluster.max()) + 1
    shares = [active[..., cluster == c, :].mean(-2) for c in range(n)]
    return torch.stack(shares, dim=-2) > 1 / 3


def units_find_all(E, cluster):
    """Return for each layer of E (layer, N, K) whether it has one unit for each cluster, and each
    unit one cluster, in the sense of `active_on_clusters`."""
    has = active_on_clusters(E, cluster)
    return (has.sum(1) == 1).all(1) & (has.sum(2) == 1).all(1)


def votes_without_competition(E):
    """Return how many votes each point has if competition is off, Z_i / mean Z, (..., N)."""
    Z = torch.exp(-E).sum(-1)
    return Z / Z.mean(-1, keepdim=True)
