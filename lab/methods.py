"""The methods of notebook 3: loss, settings, rate and look of each, and how they are trained.

To add a method, add it to `benchmark_methods`, with settings that enclose ten active units. It then
appears in the figures, tables and records. `make tune` finds its rate; if that is not to be chosen
by its loss, add its name to `lab.tuning.NOT_BY_LOSS`.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import nn

import helpers as h
from lab.parallel import side_by_side
from lab.train import ADAM, train_stacks

OPTIMIZERS = {
    "Adam": ADAM,
    "SGD": torch.optim.SGD,
    "momentum .9": partial(torch.optim.SGD, momentum=0.9),
}
CENTROID_ROWS = 20_000  # training inputs from which k-means learns


class Method(NamedTuple):
    """How a model is made, trained and shown. A setting fixes its L0: an argument of its loss, the
    k of a TopK SAE, or the L0 asked of k-means."""

    loss: Callable | None  # loss(model, x, **{argument: setting}), see `lab.train.train`
    settings: tuple
    lr: float | None = None
    argument: str | None = "lam"  # None: the setting is the k of a TopK SAE
    sae: dict | None = None  # options of a SparseAutoencoder; None: an Encoder
    raw: bool = False  # trained on pixels as they are; otherwise their mean is taken off
    optimizer: str = "Adam"  # of OPTIMIZERS
    slow_start: bool = False  # the first epoch has a twentieth of the rate
    n_seeds: int | None = None  # None: all that there are
    look: tuple | None = None  # colour, marker and line; None: a control, not drawn
    trained_on: str = ""  # in words, for the table of methods
    on_front_page: bool = True

    def new_model(self, n_inputs, n_units, setting, seed):
        """An untrained model."""
        if self.sae is None:
            return h.Encoder(n_inputs, n_units, seed=seed)
        options = self.sae | ({} if self.argument else {"k": int(setting)})
        return h.SparseAutoencoder(n_inputs, n_units, seed=seed, **options)


def encoder_loss(model, x, lam, kappa=0.0, **terms):
    """`helpers.revised_loss` of an encoder, with its terms penalty and infomax: -> ()."""
    return h.revised_loss(model(x), model.W, lam, kappa, **terms)


paper_loss = partial(encoder_loss, infomax=h.infomax_loss)  # with kappa = 0


def l1(E):
    """sum_ij E_ij / K: (N, K) -> (). The L1 penalty, in units of the log-sum-exp."""
    return E.sum() / E.shape[1]


def saturating(E):
    """sum_ij (1 - exp(-E_ij)) / K: (N, K) -> (). The log-sum-exp without a denominator: it is
    -N log K plus this, to first order."""
    return (1 - torch.exp(-E)).sum() / E.shape[1]


def benchmark_methods(kappa):
    """{name: Method} of the benchmark on digits; kappa: see `helpers.revised_loss`."""
    revised = Method(
        partial(encoder_loss, kappa=kappa),
        (0.1, 0.25, 0.75),
        0.004,
        look=("k", "o", "-"),
        trained_on="the revised loss (section 3)",
    )
    l1_sae = Method(
        h.sae_loss,
        (0.45, 1.0, 2.4),
        0.004,
        "weight",
        sae={},
        look=("#1f6fb4", "D", "--"),
        trained_on=r"$\sum_i\lVert x_i-\hat x_i\rVert^2+\ell\sum_{ij}a_{ij}\lVert v_j\rVert$",
    )
    paper = Method(
        paper_loss,
        (0.15, 0.35, 0.8),
        0.001,
        raw=True,
        look=("#dd9326", "v", ":"),
        trained_on=r"the loss of section 1, with $\lambda$ before its InfoMax terms",
    )
    control = {"look": None, "n_seeds": 3}
    # Warm colours: the paper's loss and its changes; blue: models that are trained to reconstruct
    return {
        "the paper's loss": paper,
        "the paper's loss, tuned": paper._replace(
            settings=(0.15, 0.5, 1.3),
            lr=0.01,
            optimizer="momentum .9",
            slow_start=True,
            look=("#cc6410", "<", "-."),
            trained_on="the same",
        ),
        "the paper's loss + weight decay": Method(
            partial(paper_loss, kappa=kappa),
            (0.1, 0.25, 0.65),
            0.002,
            look=("#963a0a", ">", "--"),
            trained_on="the same, with weight decay on $W$ (section 3)",
        ),
        "the revised loss": revised,
        "k-means": Method(
            None,
            (5, 9, 12, 20),
            look=("#4f9d69", "X", ":"),
            trained_on="squared distances to centroids, which become the weights; one common bias",
            on_front_page=False,
        ),
        "tied SAE": Method(
            h.sae_loss,
            (0.4, 0.8, 1.3),
            0.008,
            "weight",
            sae={"tied": True},
            look=("#5aa9dd", "s", "-."),
            trained_on=r"$\sum_i\lVert x_i-\hat x_i\rVert^2+\ell\sum_{ij}a_{ij}$",
        ),
        "L1 SAE": l1_sae,
        "TopK SAE": Method(
            h.sae_loss,
            (5, 10, 20),
            0.004,
            None,
            sae={},
            look=("#0b2d5c", "^", "-"),
            trained_on=r"$\sum_i\lVert x_i-\hat x_i\rVert^2$, with the $k$ largest $a_{ij}$",
        ),
        # Controls
        "the revised loss, L1": revised._replace(
            loss=partial(encoder_loss, kappa=kappa, penalty=l1), settings=(0.25, 0.5), **control
        ),
        "the revised loss, saturating": revised._replace(
            loss=partial(encoder_loss, kappa=kappa, penalty=saturating),
            settings=(0.1, 0.25),
            **control,
        ),
        "L1 SAE, twice its rate": l1_sae._replace(lr=2 * l1_sae.lr, **control),
        "SAE, log-sum-exp": l1_sae._replace(
            loss=partial(h.sae_loss, penalty=h.lse_loss), settings=(30, 65, 110), **control
        ),
        "SAE, saturating": l1_sae._replace(
            loss=partial(h.sae_loss, penalty=saturating), settings=(35, 75, 120), **control
        ),
    }


def paper_sae(n_inputs, n_units, seed):
    """The SAE of the paper's benchmark: its decoder starts as PyTorch's layers do."""
    model = h.SparseAutoencoder(n_inputs, n_units, seed=seed)
    generator = torch.Generator().manual_seed(100 + seed)
    model.V.data.uniform_(-(n_units**-0.5), n_units**-0.5, generator=generator)
    return model


# --- Training -----------------------------------------------------------------------------------


def train_methods(
    chosen, x, mean, n_units, seeds, *, epochs, batch_size=h.BATCH_SIZE, most=15, more=(), title
):
    """Train the methods {name: Method} with all their seeds.

    x (N, D): centred inputs; mean (D,): what was taken off them. A stack has at most `most` models.
    more: other stacks, of `lab.train.train_stacks`, that are trained beside them.
    Returns {(name, setting, seed): model}, models of centred inputs.
    """
    raw = x + mean if any(method.raw for method in chosen.values()) else None
    stacks, kmeans = [*more], []
    for name, method in chosen.items():
        if method.loss is None:
            job = partial(kmeans_encoders, name, method.settings, n_units=n_units, x=x)
            kmeans += [partial(job, seed) for seed in seeds[: method.n_seeds]]
            continue
        for runs in _stacks(method, seeds[: method.n_seeds], most):
            stack = stack_of(method, runs, raw if method.raw else x, n_units, epochs, batch_size)
            stacks.append(([(name, *run) for run in runs], stack))
    models = train_stacks(stacks, title)[0]
    found = {key: models[key] for key in models if key[0] in chosen}
    for key, model in found.items():
        if chosen[key[0]].raw:
            h.shift_bias(model, -mean)
    for part in side_by_side(kmeans, "k-means" if kmeans else None):
        found |= part
    return found


def stack_of(method, runs, x, n_units, epochs, batch_size=h.BATCH_SIZE):
    """Arguments of `lab.train.train` for a model of each (setting, seed) of runs."""
    settings, seeds = zip(*runs)
    return {
        "models": [method.new_model(x.shape[1], n_units, *run) for run in runs],
        "loss": method.loss,
        "x": x,
        "arguments": {method.argument: settings} if method.argument else {},
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": method.lr,
        "optimizer": OPTIMIZERS[method.optimizer],
        "schedule": h.rate_schedule(epochs, method.slow_start),
        "seed": seeds,
    }


def _stacks(method, seeds, most):
    """Lists of (setting, seed), of which each is a stack; neighbours share a seed."""
    # Models of different k do not stack
    groups = [[k] for k in method.settings] if method.argument is None else [method.settings]
    n = max(1, most // len(groups[0]))  # seeds in a stack
    parts = [seeds[i : i + n] for i in range(0, len(seeds), n)]
    return [[(s, seed) for seed in part for s in group] for group in groups for part in parts]


def kmeans_encoders(name, l0s, seed, n_units, x):
    """{(name, l0, seed): Encoder}: centroids of x (N, D) at norm 1, and one common bias.

    The bias gives the L0 asked for, on the rows of x from which the centroids are learned.
    """
    x = x[:CENTROID_ROWS]
    kmeans = KMeans(n_units, n_init=1, random_state=seed, algorithm="elkan").fit(x.cpu().numpy())
    rows = nn.functional.normalize(torch.from_numpy(kmeans.cluster_centers_).to(x), dim=1)
    scores, found = (x @ rows.T).flatten(), {}
    for l0 in l0s:
        model = h.Encoder(x.shape[1], n_units).to(x)
        rank = max(1, round(len(scores) * (1 - l0 / n_units)))
        model.W = nn.Parameter(rows.clone())
        model.b.data = -scores.kthvalue(rank).values.expand(n_units).clone()
        found[name, l0, seed] = model
    return found


def encoder_from(sae, loss, x):
    """An encoder with W and b of a trained SAE, times the common factor of the least loss on x.

    loss(model, x) is tried at the factors 2^-4, 2^-3.5, ..., 2^4.
    """

    def at(factor):
        encoder = h.Encoder(sae.W.shape[1], len(sae.W)).to(sae.W)
        encoder.W.data, encoder.b.data = factor * sae.W.detach(), factor * sae.b.detach()
        with torch.no_grad():
            return float(loss(encoder, x)), encoder

    return min((at(2.0 ** (i / 2)) for i in range(-8, 9)), key=lambda pair: pair[0])[1]


# --- The ratio of W^T to least squares, without tuned rates -------------------------------------

RATIO_CASES = [("Adam", True), ("Adam", False), ("SGD", True), ("SGD", False)]  # True: raw pixels
RATIO_LOSSES = {  # InfoMax terms: {loss: (whether W decays, a lambda for each case)}
    h.infomax_loss: {
        "the paper's loss": (0, (0.365, 0.17, 0.345, 0.19)),
        "the paper's loss + weight decay": (1, (0.24, 0.22, 0.24, 0.23)),
    },
    h.log_det_loss: {
        "log-sum-exp + log-determinant": (0, (0.38, 0.16, 0.34, 0.18)),
        "log-sum-exp + log-determinant + weight decay": (1, (0.22, 0.22, 0.22, 0.21)),
    },
}


def train_for_ratios(kappa, x, mean, n_units, seeds, *, epochs):
    """Train RATIO_LOSSES near L0 10: Adam at .001, SGD at .01 with a slow start.

    x, mean: as of `train_methods`. Returns {((loss, optimiser, raw pixels), lambda, seed): model}.
    """
    stacks, pixels = [], x + mean
    for (case, (optimizer, raw)), (infomax, losses) in product(
        enumerate(RATIO_CASES), RATIO_LOSSES.items()
    ):
        rows = [
            ((name, optimizer, raw), lambdas[case], seed, kappa * decays)
            for seed in seeds
            for name, (decays, lambdas) in losses.items()
        ]
        _, lams, own_seeds, kappas = zip(*rows)
        sgd = optimizer == "SGD"
        stack = {
            "models": [h.Encoder(x.shape[1], n_units, seed=seed) for seed in own_seeds],
            "loss": partial(encoder_loss, infomax=infomax),
            "x": pixels if raw else x,
            "arguments": {"lam": lams, "kappa": kappas},
            "epochs": epochs,
            "lr": 0.01 if sgd else 0.001,
            "optimizer": OPTIMIZERS[optimizer],
            "schedule": h.rate_schedule(epochs, slow_start=sgd),
            "seed": own_seeds,
        }
        stacks.append(([row[:3] for row in rows], stack))
    models = train_stacks(stacks, "ratios")[0]
    for ((*_, raw), *_), model in models.items():
        if raw:
            h.shift_bias(model, -mean)
    return models
