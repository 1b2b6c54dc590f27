"""Each live criterion can fail: on a control that is in the record, and a few as noted."""

import json

import numpy as np
import pandas as pd

from lab import ROOT, claims, cut, law, reasons, tables

RECORD = {s: json.loads((ROOT / f"figures/{s}.json").read_text()) for s in claims.STEMS}


def test_each_live_criterion_fails_on_its_control():
    two, three, words = (RECORD[stem] for stem in ("2_ablation", "3_benchmark", "language"))
    ablation, cuts = (pd.DataFrame(two[name]) for name in ("table", "cut"))
    table, shares, paper = (pd.DataFrame(three[name]) for name in ("table", "shares", "paper"))
    of, sae = ablation.set_index("config"), paper[paper["the paper's"] == "SAE"]
    of_b = cuts[(cuts.kind == "cut") & (cuts.weight == 0)]
    none = cuts[(cuts.kind == "none") & (cuts.lam == 1)]  # no log-sum-exp, in place of the cut
    site = pd.DataFrame(words["table"]).query("part == '(b)'")
    stops = law.stops(
        [run | {"volume": 1} for run in two["losses"]], two["parameters"]["TOLERANCES"]
    )
    bare = table.replace({"method": {"bounded": "", "published form": "bounded"}})
    by = {"l0": 10, "other": "bounded", "ratio": True}
    controls = {
        "em_without": 0,  # a run beside itself
        "entropies": of.entropy["V"] - cut.PUBLISHED.entropy["B"],
        "redundancies": np.log(of_b.redundancy / cut.PUBLISHED.redundancy["B"]),
        "not_sparser": of.L0["D"].values / of.L0["C"].values - 1,
        "idle": 1 - none.agreement,
        "not_idle": cut.ratios(cuts, "order"),
        "stop": law.stop_line(stops, "raw")[0] - 1,  # without the mean over five epochs
        "ends": 1,  # invented: a scale that grows on
        "their_probe": sae["probe, %"] - 93.43,
        "their_error": sae["norm-matched MSE"] - 0.143,
        "transpose": tables.at_l0(table, "published form", "share", 10),
        "floor": tables.gap_closed(bare, 10),  # of the published form
        "purity_published": tables.difference(table, "purity", 10, "TopK SAE"),
        "agreement": next(c for c in three["claims"] if c["id"] == "agreement")["judged"][""],
        "metric": reasons.gains(shares.assign(currency=shares["of another unit"])),
        "bias": 0,  # a bias at its own rate
        "bias_decay": 0,  # bounded beside itself
        "predicted": reasons.beside_prior(shares.assign(currency=shares["as it is"])),
        "prices": np.log(tables.difference(table, "transpose", method="published + prior", **by)),
        "language_prices": np.log(tables.difference(site, "transpose", method="bounded, L1", **by)),
    }
    live = {c["id"]: stem for stem in claims.STEMS for c in RECORD[stem]["claims"]}
    assert set(controls) == set(live) and len(live) <= 20
    for id, values in controls.items():
        found = claims.Claims(live[id])
        found[id] = values
        assert {c["id"]: c["holds"] for c in found.judge()}[id] is False, id
