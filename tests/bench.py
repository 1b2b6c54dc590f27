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

BATCH, EPOCHS, ROUNDS = 128, 4, 3


def em_loss(model, x, **weights):
    return h.implicit_em_loss(model(x), **weights)


def sae_loss(model, x):
    x_hat, a = model(x)
    return h.sae_loss(x, x_hat, a, 0.5)


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def products(x, n_models, n_steps):
    """The two products of an encoder step, all models in one: E = x W', then E' x."""
    W = torch.randn(n_models * 64, x.shape[1])
    for i in [*range(n_steps)] * EPOCHS:
        batch = x[i * BATCH : (i + 1) * BATCH]
        (batch @ W.T).T @ batch


def main():
    x = h.load_mnist()[0]
    n_steps = len(x) // BATCH
    quiet = {"epochs": EPOCHS, "batch_size": BATCH, "progress": None}

    def ours(n):
        models = [h.Encoder(784, 64, seed=s) for s in range(n)]
        return lambda: h.train(models, em_loss, x, weights={"variance": 1.0}, **quiet)

    def sae():
        return lambda: h.train([h.SparseAutoencoder(784, 64)], sae_loss, x, **quiet)

    runs = {f"ours, {n} models": ours(n) for n in (1, 4, 12)} | {"SAE, 1 model": sae()}
    runs |= {f"products, {n} models": lambda n=n: products(x, n, n_steps) for n in (1, 4, 12)}
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(1e3 * seconds(run) / n_steps / EPOCHS)
    ms = {name: statistics.median(values) for name, values in times.items()}
    print(f"{torch.get_num_threads()} threads; medians of {ROUNDS} rounds, ms per step")
    for name, value in ms.items():
        print(f"  {name:22s} {value:7.2f}   ({min(times[name]):.2f} to {max(times[name]):.2f})")
    for n, limit in ((4, 2.7), (12, 2.2)):
        ratio = ms[f"ours, {n} models"] / ms[f"products, {n} models"]
        print(f"step / products, {n:2d} models: {ratio:.2f}   (aim: at most {limit})")
    print(f"ours / SAE, 1 model: {ms['ours, 1 models'] / ms['SAE, 1 model']:.2f}")
    print(f"model-epochs per second, 12 models: {12e3 / ms['ours, 12 models'] / n_steps:.1f}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
