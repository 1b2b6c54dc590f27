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

import helpers as h
from common import (
    interpolate_at_l0,
    new_l1_sae,
    new_layer,
    new_tied_sae,
    new_top_k_sae,
    score_rates,
    sweep_rates,
)

RATES = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032]
ACTIVE = 17  # units, of 64, as in the paper's layer
METHODS = {  # and the strengths between which 17 active units are found
    "layer": (new_layer, [0.5, 1, 2, 4]),
    "layer, decay 0.4": (partial(new_layer, decay=0.4), [0.5, 1, 2, 4]),
    "layer, decay 0.8": (partial(new_layer, decay=0.8), [0.5, 1, 2, 4]),
    "layer, decay 1.6": (partial(new_layer, decay=1.6), [0.5, 1, 2, 4]),
    "tied SAE": (new_tied_sae, [0.1, 0.2, 0.4, 0.8]),
    "L1 SAE": (new_l1_sae, [0.2, 0.4, 0.8, 1.6]),
    "TopK SAE": (new_top_k_sae, [ACTIVE, 24]),  # of k, some units may not be above zero
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, nargs=2, default=[12, 100], help="else 12 100")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="else 0 1")
    parser.add_argument("--figures", type=Path, default=Path("build"), help="folder, else build")
    args = parser.parse_args()
    few, many = args.epochs
    x = h.load_images()[0]
    setting = {"x": x[:50_000], "x_held_out": x[50_000:], "n_units": 64, "seeds": args.seeds}
    args.figures.mkdir(parents=True, exist_ok=True)
    path = args.figures / "tuning.csv"
    table = sweep_rates(METHODS, RATES, epochs=few, **setting)
    table.to_csv(path, index=False, float_format="%.6g")  # now: idxmax fails if a row has no score
    by_rate = score_rates(table, ACTIVE)
    print(by_rate.round(1).to_string())
    rates = by_rate.idxmax(axis=1)
    print("chosen:", rates.to_dict())
    best_layer = by_rate.max(axis=1).filter(like="layer").idxmax()
    for name, strengths in ((best_layer, [1, 1.4, 2, 2.8]), ("tied SAE", [0.25, 0.35, 0.5, 0.7])):
        method = {name: (METHODS[name][0], strengths)}
        tuned = sweep_rates(method, [rates[name]], epochs=many, **setting)
        table = pd.concat([table, tuned], ignore_index=True)
        strength = interpolate_at_l0(tuned, "strength", ACTIVE)
        print(f"{name}: strength {strength:.3g} at {many} epochs")
    table.to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
