"""How learning rates were chosen, on digits held out from training: `make tune`, into tuning.csv.

The rule is one for all methods: the rate, and the weight decay, with which the model's own decoder
explains most of the variance of held-out digits at 17 active units, interpolated between strengths.
For the two tuned models of notebook 3, the strength with 17 active units is then found at its 100
epochs.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import pandas as pd
from tqdm import tqdm

import common
import helpers as h

RATES = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032]
ACTIVE = 17  # units, of 64, as in the paper's layer
HEAVIER = [0.5, 1, 2, 4]
METHODS = {  # a model, its loss, and the strengths between which 17 active units are found
    "the paper's layer": (common.new_layer, common.layer_loss, HEAVIER),
    "layer, centred": (common.new_layer, common.layer_loss, HEAVIER),
    **{
        f"layer, decay {decay}": (
            common.new_layer,
            partial(common.layer_loss, decay=decay),
            HEAVIER,
        )
        for decay in (0.4, 0.8, 1.6)
    },
    "tied SAE": (
        partial(common.new_sae, tied=True),
        common.tied_sae_loss,
        [0.1, 0.2, 0.4, 0.8],
    ),
    "L1 SAE": (common.new_sae, common.l1_sae_loss, [0.2, 0.4, 0.8, 1.6]),
    "TopK SAE": (common.TopKSAE, common.top_k_sae_loss, [ACTIVE, 24]),  # some are not above zero
}


def search(name, rates, strengths, seeds, epochs):
    """Return a DataFrame with a row for each rate, strength and seed of a method."""
    new, loss, _ = METHODS[name]
    x = h.load_images()[0]
    x = x - (0 if name == "the paper's layer" else x[:50_000].mean(0))
    rows = []
    for lr in tqdm(rates, name):
        models = common.train(new, loss, x[:50_000], 64, strengths, seeds, lr, epochs)
        for (strength, seed), model in models.items():
            keys = dict(method=name, epochs=epochs, lr=lr, strength=strength, seed=seed)
            rows.append(keys | common.measure(model, x[:20_000], x[50_000:]))
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, nargs=2, default=[12, 100], help="else 12 100")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="else 0 1")
    parser.add_argument("--figures", type=Path, default=Path("build"), help="folder, else build")
    args = parser.parse_args()
    few, many = args.epochs
    args.figures.mkdir(parents=True, exist_ok=True)
    path = args.figures / "tuning.csv"
    table = pd.concat([search(name, RATES, METHODS[name][2], args.seeds, few) for name in METHODS])
    table.to_csv(path, index=False, float_format="%.6g")
    scores = common.score_rates(table, ACTIVE)
    print(scores.round(1).to_string())
    rates = scores.idxmax(axis=1)
    print("chosen:", rates.to_dict())
    layer = scores.max(axis=1).filter(like="layer").idxmax()
    for name, strengths in ((layer, [1, 1.4, 2, 2.8]), ("tied SAE", [0.25, 0.35, 0.5, 0.7])):
        tuned = search(name, [rates[name]], strengths, args.seeds, many)
        table = pd.concat([table, tuned])
        table.to_csv(path, index=False, float_format="%.6g")
        strength = common.interpolate(tuned, "strength", ACTIVE)
        print(f"{name}: strength {strength:.3g} at {many} epochs")


if __name__ == "__main__":
    main()
