"""The tables of notebooks 2 and 3, and of README.md, as DataFrames of text."""

import pandas as pd

import helpers as h
from lab import ablation, criteria
from lab.show import mean, span, spread, spreads

CHANGES = {  # of `ablation.Run`, in words
    "start": "initial weights changed by a millionth",
    "order": "another order of the digits",
}

# --- Notebook 2 ---------------------------------------------------------------------------------


def configurations(terms, table):
    """A to D: their terms, and what the paper measures, beside the paper's numbers.

    terms: a row of 0 and 1 for each configuration; table: a row of `measures.of_energies` for each
    configuration ("run") and seed.
    """
    names = {"dead": "dead units", "l0": "L0"}
    ours = spreads(table, "run", {"dead": 0, "redundancy": 1, "entropy": 2, "l0": 1})
    paper = ablation.PAPER.map("{:,.4g}".format).replace("nan", "–")
    ours, paper = ours.rename(columns=names), paper.rename(columns=names)
    shown = terms.replace({1: "✓", 0: ""})
    for column in ours:
        shown[column] = ours[column]
        if column != "dead units":
            shown[f"{column}, paper"] = paper[column]
    return shown.rename_axis("")


def competition_terms(table):
    """table: a row of `measures.of_competition` for each "run" and seed."""
    digits = {"competition term": 4, "second order": 4, "Var(Z)": 1, "variances": 1}
    shown = spreads(table, "run", digits | {"covariances": 1})
    named = {"competition term": "competition term, nats", "Var(Z)": r"$\mathrm{Var}(Z)$"}
    named |= {"variances": "of it variances", "covariances": "of it covariances"}
    return shown.rename(columns=named).rename_axis("")


def doses(runs):
    """Weights of competition, and the controls of C, from `ablation.measure`."""
    plain = runs[runs.change == ""]
    C = runs[(runs.decorrelation == 1) & (runs.lam == 1)]
    sparser = runs[(runs.decorrelation == 1) & (runs.lam == 0.35)]
    B = plain[(plain.decorrelation == 0) & (plain.lam == 1)]
    rows = {}
    for weight in sorted(plain.weight.unique()):
        b, c, s = (
            group[(group.weight == weight) & (group.change == "")] for group in (B, C, sparser)
        )
        rows[f"{weight:,g}"] = {
            "B: redundancy": spread(b.redundancy, 0),
            "B: competition term": spread(b["competition term"], 3),
            "B: L0": spread(b.l0, 1),
        } | _of_c(c, s)
    for change, name in CHANGES.items():
        c, s = (group[group.change == change] for group in (C, sparser))
        rows[f"1, {name}"] = _of_c(c, s)
    found = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    return found.rename_axis("weight of competition")


def _of_c(rows, sparser):
    return {
        "C: redundancy": mean(rows.redundancy, 1),
        "C: competition term": mean(rows["competition term"], 4),
        "C: L0": mean(rows.l0, 1),
        "C: agreement": span(rows.agreement, 3),
        "C: units replaced": span(rows.replaced, 0),
        "C at λ = 0.35: agreement": span(sparser.agreement, 3),
        "C at λ = 0.35: units replaced": span(sparser.replaced, 0),
    }


def controls(runs):
    """Redundancy of B with competition, or a control in its place, from `ablation.measure`."""
    B = runs[(runs.decorrelation == 0) & (runs.lam == 1)]
    names = {
        "… nothing": B[(B.change == "") & (B.weight == 0)],
        "… competition": B[(B.change == "") & (B.weight == 10)],
        "… covariances only": B[B.change == "covariances only"],
        "… variances only": B[B.change == "variances only"],
        "… shuffled competition": B[B.change == "shuffled"],
    }
    rows = {
        name: {"redundancy": spread(found.redundancy, 0), "L0": spread(found.l0, 1)}
        for name, found in names.items()
    }
    first = "pooled log-sum-exp + variance + ten times …"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(first)


def sparsities(runs):
    """L0, and redundancy without competition over that with it, for B and C at each lambda."""
    plain = runs[runs.change == ""]
    columns = {}
    for name, w in (("B", 0), ("C", 1)):
        chosen = plain[plain.decorrelation == w]
        ratios, having = criteria.redundancy_ratios(chosen), chosen[chosen.weight == 1]
        l0s = having.set_index(["lam", "seed"]).l0
        columns |= {
            f"{name}: L0": {lam: spread(l0s[lam][ratio.index], 1) for lam, ratio in ratios.items()},
            f"{name}: redundancy, without competition over with it": {
                lam: spread(ratio, 2) for lam, ratio in ratios.items()
            },
        }
    shown = pd.DataFrame(columns).sort_index().fillna("–")
    shown.index = [f"{lam:g}" for lam in shown.index]
    return shown.rename_axis(r"$\lambda$")


def variants(table, energies):
    """L0 and dead units of each row of a table of configurations; energies {(name, seed): E}."""
    shown = table.map("{:,}".format).rename(columns={"rows": "minibatch"})
    l0s, dead = (
        pd.Series({run: measure(E) for run, E in energies.items()}).groupby(level=0)
        for measure in (h.l0, h.dead)
    )
    shown = shown.assign(L0=l0s.apply(spread, 1), dead=dead.apply(span, 0))
    return shown.rename(columns={"dead": "dead units"}).rename_axis(None)


# --- Notebook 3 ---------------------------------------------------------------------------------


def paper_comparison(paper):
    """The paper's comparison: "model" and `measures.paper_benchmark`, beside its numbers."""
    names = {
        "parameters": ("parameters", 0, None),
        "l0": ("L0", 1, ("17.2", "32.2")),
        "dead": ("dead units", 0, None),
        "probe": ("probe, %", 1, ("93.4", "90.3")),
        "norm_matched": ("MSE, norm-matched", 3, ("0.143", "0.026")),
        "mse": ("MSE", 3, None),
    }
    digits = {column: decimals for column, (_, decimals, _) in names.items()}
    ours, shown = spreads(paper, "model", digits), {}
    for column, (name, _, reported) in names.items():
        shown[name] = ours[column]
        if reported:
            shown[f"{name}, paper"] = reported
    return pd.DataFrame(shown).rename_axis("")


def method_settings(chosen):
    """What each method {name: Method} is trained on, and how."""
    rows = {}
    for name, method in chosen.items():
        if not method.look:
            continue
        own = method.sae is not None and not method.sae.get("tied")
        how = "–"
        if method.loss is not None:
            how = f"{method.optimizer}, {method.lr:g}{', slow start' * method.slow_start}"
        rows[name] = {
            "trained on": method.trained_on,
            "decoder": "$V$, trained" if own else "$W^\\top$" + ", trained" * bool(method.sae),
            "pixels": "raw" if method.raw else "centred",
            "optimiser, rate": how,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def reconstruction(at, variance):
    """Reconstruction at an L0: of `measures.at_l0`, rows for the notebook and for README.md.

    variance: of the test inputs, mean over entries, which makes an MSE of a variance explained.
    """
    rows = {}
    for name, seeds in at.groupby(level=0, sort=False):
        rows[name] = {
            "parameters": f"{seeds.parameters.max():,.0f}",
            "MSE": mean((1 - seeds.explained) * variance, 4),
            "variance explained": spread(seeds.explained.dropna(), 3),
            "cut to ten": mean(seeds["cut"], 3),
            "with least squares": mean(seeds.least_squares, 3),
            "cosine of $w_j$ and its least-squares row": mean(seeds.cosine, 2),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("at ten active units")


def ratios(table):
    """W^T over least squares: a row for each loss, a column for optimiser and pixels."""
    loss, optimiser, raw = (list(values) for values in zip(*table.method))
    pixels = [f"{name}, {'raw pixels' if r else 'centred'}" for name, r in zip(optimiser, raw)]
    shown = table.assign(loss=loss, pixels=pixels)
    shown = shown.pivot_table("ratio", "loss", "pixels", sort=False).map("{:.2f}".format)
    return shown.rename_axis("", axis=0).rename_axis(None, axis=1)


def competition_of_revised(table):
    """table: of `ablation.measure`, with "explained"."""
    names = {
        (1.0, ""): "none",
        (1.0, "start"): CHANGES["start"],
        (0.0, ""): "no competition",
        (10.0, ""): "competition × 10",
        (1.0, "order"): CHANGES["order"],
    }
    rows = {}
    for (weight, change), name in names.items():
        runs = table[(table.weight == weight) & (table.change == change)]
        rows[name] = {
            "variance explained": spread(runs.explained, 3),
            "L0": spread(runs.l0, 1),
            "agreement with the original units": span(runs.agreement, 3),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("change")


def penalties(at):
    """Penalties of the revised loss and of an SAE, at ten active units."""
    named = {
        r"L1, $\sum_jE_{ij}$": ("the revised loss, L1", "L1 SAE"),
        r"log-sum-exp, $-\log\sum_je^{-E_{ij}}$": ("the revised loss", "SAE, log-sum-exp"),
        r"without a denominator, $\sum_j(1-e^{-E_{ij}})$": (
            "the revised loss, saturating",
            "SAE, saturating",
        ),
    }
    rows = {
        penalty: {
            "revised loss, $W^\\top$": _at(at.explained, ours),
            "SAE": _at(at.explained, sae),
            "SAE, cut to ten": _at(at["cut"], sae),
        }
        for penalty, (ours, sae) in named.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("penalty, at ten active units")


def _at(column, name, digits=3):
    return spread(column[name].dropna(), digits) if name in column.index else "–"


def units(at, agree, names):
    """Probe, agreement and purity at an L0, of `measures.at_l0` of models and of pairs of seeds."""
    rows = {}
    for name in names:
        pairs = agree.agreement[name] if name in agree.index else pd.Series(dtype=float)
        rows[name] = {
            "probe, %": _at(at.probe, name, 1),
            "agreement of two seeds": mean(pairs, 2),
            "lowest and highest": span(pairs.dropna(), 2),
            "purity": _at(at.purity, name),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("at ten active units")


def language(record):
    """Of the record of `lab.language`: at ten active units."""
    values = {(n["method"], n["quantity"]): n["seeds"] for n in record["numbers"]}
    at = pd.DataFrame(record["at_l0"])
    rows = {
        name: {
            "variance explained": spread(values[name, "explained"], 3),
            "with least squares": mean(values[name, "least_squares"], 3),
            "loss recovered, %": spread(values[name, "recovered"], 1),
            "agreement": mean(values[name, "agreement"], 2),
            "dead units": mean(at.dead[at.method == name], 0),
        }
        for name in record["rates"]
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("at ten active units")
