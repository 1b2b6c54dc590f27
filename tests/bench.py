"""Speed and memory of the stacked step, beside its matrix products alone: `make bench`.

Times vary with the machine and with what else it does; the ratios are of one run, alternating.
"""

import resource
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import helpers as h

BATCH, EPOCHS, ROUNDS = 128, 2, 5
SEEDS, WEIGHTS = [0, 1, 2], [0.1, 0.25, 0.5, 1.0, 2.0]


def bounded(model, x, weight):
    return h.bounded_loss(model, x, weight, kappa=0.8)


def stack(make, loss, x, **options):
    """Train one model for every seed and weight."""
    models = [make(784, 64, seed=s) for s in SEEDS for _ in WEIGHTS]
    options |= {"weights": {"weight": WEIGHTS * len(SEEDS)}, "seed": SEEDS, "progress": None}
    h.train(models, loss, x, epochs=EPOCHS, batch_size=BATCH, **options)


def products(x):
    """E = x W' and E' x of the same stack, each seed with minibatches of its own."""
    W = torch.randn(len(SEEDS), len(WEIGHTS) * 64, x.shape[1])
    for _ in range(EPOCHS):
        order = torch.stack([torch.randperm(len(x)) for _ in SEEDS])
        for rows in order.split(BATCH, dim=1)[: len(x) // BATCH]:
            batch = x[rows]
            (batch @ W.mT).mT @ batch


def main():
    x, times = h.load_mnist()[0][:20_000], {}
    runs = {
        "products": lambda: products(x),
        "bounded": lambda: stack(h.Encoder, bounded, x),
        "L1 SAE": lambda: stack(h.SparseAutoencoder, h.sae_loss, x, unit_norm="V"),
    }
    for name in [*runs] * ROUNDS:
        start = time.perf_counter()
        runs[name]()
        seconds = time.perf_counter() - start
        times.setdefault(name, []).append(1e3 * seconds / EPOCHS / (len(x) // BATCH))
    ms = {name: statistics.median(values) for name, values in times.items()}
    print(f"{torch.get_num_threads()} threads; ms per step of 3 seeds x 5 models")
    for name, values in times.items():
        print(f"  {name:8s} {ms[name]:7.2f}   ({min(values):.2f} to {max(values):.2f})")
    print(f"bounded / products: {ms['bounded'] / ms['products']:.2f}")
    print(f"bounded / L1 SAE: {ms['bounded'] / ms['L1 SAE']:.2f}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
