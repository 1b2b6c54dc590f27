"""lab/tables.py: each table of made-up numbers, whose cells are computed by hand."""

import math

import pandas as pd
import torch

from lab import tables
from lab.methods import Method

NAN = math.nan


def told(frame, name):
    """A row, as "column: cell; column: cell"."""
    return "; ".join(f"{column}: {cell}" for column, cell in frame.loc[name].items())


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_configurations_stand_beside_the_paper_s_numbers():
    terms = pd.DataFrame({"log-sum-exp": [1, 1, 0], "variance": [0, 1, 1]}, list("ACD"))
    rows = [("D", 8, 10, 2, 30), ("C", 4, 20, 1, 10), ("C", 4, 22, 1.5, 12), ("A", 0, NAN, 3, 0)]
    columns = ["run", "dead", "redundancy", "entropy", "l0"]
    found = tables.configurations(terms, pd.DataFrame(rows, columns=columns))
    assert told(found, "C") == (
        "log-sum-exp: ✓; variance: ✓; dead units: 4; redundancy: 21.0 ± 1.4; "
        "redundancy, paper: 29; entropy: 1.25 ± 0.35; entropy, paper: 3.85; L0: 11.0 ± 1.4; "
        "L0, paper: 17.2"
    )
    assert list(found.loc["A"]) == ["✓", "", "0", "–", "–", "3.00", "4.16", "0.0", "–"]


def test_competition_terms_have_the_two_parts_of_the_variance():
    columns = ["run", "competition term", "second order", "Var(Z)", "variances", "covariances"]
    rows = [("B", 0.5, 0.25, 30, variances, 20) for variances in (10, 12)]
    assert told(tables.competition_terms(pd.DataFrame(rows, columns=columns)), "B") == (
        r"competition term, nats: 0.5000; second order: 0.2500; $\mathrm{Var}(Z)$: 30.0; "
        "of it variances: 11.0 ± 1.4; of it covariances: 20.0"
    )


def short_runs():
    """Runs as of `ablation.measure`: run n has redundancies 100 n and 100 n + 2, competition terms
    n / 100, L0 and units replaced n and n + 1, and agreements 1 - n / 1000 and .002 less."""
    cases = [  # n, weight, decorrelation, lambda, change
        (11, 0, 0, 1, ""),
        (12, 10, 0, 1, ""),
        (13, 10, 0, 1, "shuffled"),
        (14, 10, 0, 1, "variances only"),
        (16, 10, 1, 1, ""),
        (17, 10, 1, 0.35, ""),
        (18, 1, 1, 1, "start"),
        (19, 1, 1, 0.35, "order"),
        (20, 10, 0.3, 1, ""),  # neither B nor C
        (21, 10, 0, 0.3, ""),
    ]
    runs = pd.DataFrame(cases, columns=["n", "weight", "decorrelation", "lam", "change"])
    runs = pd.concat([runs.assign(seed=0), runs.assign(seed=1)])
    n, seed = runs.n, runs.seed
    found = {"redundancy": 100 * n + 2 * seed, "competition term": n / 100, "l0": n + seed}
    return runs.assign(**found, replaced=n + seed, agreement=1 - n / 1000 - seed / 500)


def test_doses_of_competition_in_b_in_c_and_in_a_sparser_c():
    found = tables.doses(short_runs())
    assert told(found, "10") == (
        "B: redundancy: 1,201 ± 1; B: competition term: 0.120; B: L0: 12.5 ± 0.7; "
        "C: redundancy: 1,601.0; C: competition term: 0.1600; C: L0: 16.5; "
        "C: agreement: 0.982 to 0.984; C: units replaced: 16 to 17; "
        "C at λ = 0.35: agreement: 0.981 to 0.983; C at λ = 0.35: units replaced: 17 to 18"
    )
    assert list(found["B: L0"]) == ["11.5 ± 0.7", "12.5 ± 0.7", "", ""]
    assert list(found["C: L0"]) == ["–", "16.5", "18.5", "–"]
    assert found["C at λ = 0.35: units replaced"].iloc[-1] == "19 to 20"


def test_controls_stand_in_the_place_of_ten_times_the_competition_of_b():
    found = tables.controls(short_runs())
    assert found.redundancy.to_dict() == {
        "… nothing": "1,101 ± 1",
        "… competition": "1,201 ± 1",
        "… covariances only": "–",
        "… variances only": "1,401 ± 1",
        "… shuffled competition": "1,301 ± 1",
    }
    assert found.L0["… variances only"] == "14.5 ± 0.7"


def test_sparsities_divide_redundancy_without_competition_by_that_with_it():
    rows = [  # decorrelation, lambda, seed, weight, redundancy, L0
        *[(0.0, 0.3, 0, 1.0, 100, 3), (0.0, 0.3, 0, 0.0, 150, 1)],
        *[(0.0, 0.3, 1, 1.0, 100, 4), (0.0, 0.3, 1, 0.0, 170, 1)],
        *[(0.0, 0.3, 2, 1.0, 100, 9)],  # of this seed there is none without
        *[(0.0, 10.0, 0, 1.0, 50, 60), (0.0, 10.0, 0, 0.0, 55, 1)],
        *[(1.0, 0.3, 0, 1.0, 20, 5), (1.0, 0.3, 0, 0.0, 19, 1), (1.0, 3.0, 0, 1.0, 7, 8)],
    ]
    columns = ["decorrelation", "lam", "seed", "weight", "redundancy", "l0"]
    runs = pd.DataFrame(rows, columns=columns).assign(change="")
    others = runs.assign(change="start", redundancy=1)
    found = tables.sparsities(pd.concat([runs, others]))
    name = "redundancy, without competition over with it"
    assert told(found, "0.3") == (
        f"B: L0: 3.5 ± 0.7; B: {name}: 1.60 ± 0.14; C: L0: 5.0; C: {name}: 0.95"
    )
    assert list(found.index) == ["0.3", "10"]
    assert list(found.loc["10"]) == ["60.0", "1.10", "–", "–"]


def test_variants_have_their_own_l0_and_dead_units():
    table = pd.DataFrame({"variance": [1, 64], "rows": [1024, 128]}, index=[3, 5])
    active = {(5, 0): 4, (3, 0): 1, (3, 1): 3}
    energies = {run: (torch.arange(4) < n).float().expand(6, 4) for run, n in active.items()}
    found = tables.variants(table, energies)
    assert told(found, 3) == "variance: 1; minibatch: 1,024; L0: 2.0 ± 1.4; dead units: 1 to 3"
    assert told(found, 5) == "variance: 64; minibatch: 128; L0: 4.0; dead units: 0"


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_paper_s_comparison_has_its_numbers_by_name_of_the_model():
    columns = ["model", "parameters", "l0", "dead", "probe", "norm_matched", "mse"]
    rows = [
        ("the paper's model", 50240, 17, 0, 93, 0.14, 0.04),
        ("the paper's model", 50240, 18, 2, 94, 0.15, 0.05),
        ("the paper's SAE", 101200, 32, 30, 90, 0.03, 0.01),
    ]
    found = tables.paper_comparison(pd.DataFrame(rows, columns=columns))
    assert told(found, "the paper's model") == (
        "parameters: 50,240; L0: 17.5 ± 0.7; L0, paper: 17.2; dead units: 1 ± 1; "
        "probe, %: 93.5 ± 0.7; probe, %, paper: 93.4; MSE, norm-matched: 0.145 ± 0.007; "
        "MSE, norm-matched, paper: 0.143; MSE: 0.045 ± 0.007"
    )
    assert list(found.loc["the paper's SAE"])[1:3] == ["32.0", "32.2"]


def test_settings_of_methods_name_optimiser_rate_and_decoder():
    shown = {"look": ("k", "o", "-"), "trained_on": "a loss"}
    chosen = {
        "a": Method(len, (1,), 0.01, raw=True, optimizer="SGD", slow_start=True, **shown),
        "tied": Method(len, (1,), 0.3, sae={"tied": True}, **shown),
        "own": Method(len, (1,), 0.001, sae={}, **shown),
        "k-means": Method(None, (5,), **shown),
        "control": Method(len, (1,), 0.001),
    }
    assert tables.method_settings(chosen).T.to_dict("list") == {
        "a": ["a loss", "$W^\\top$", "raw", "SGD, 0.01, slow start"],
        "tied": ["a loss", "$W^\\top$, trained", "centred", "Adam, 0.3"],
        "own": ["a loss", "$V$, trained", "centred", "Adam, 0.001"],
        "k-means": ["a loss", "$W^\\top$", "centred", "–"],
    }


def at_l0(columns, **methods):
    """{method: [(a value for each column) for each seed]} as `measures.at_l0` gives them."""
    rows = {(name, seed): v for name, of in methods.items() for seed, v in enumerate(of)}
    return pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(rows), columns.split())


def test_reconstruction_turns_variance_explained_into_an_error():
    columns = "parameters explained cut least_squares cosine"
    b = [(50240, 0.6, 0.65, 0.7, 0.9), (50240, 0.7, NAN, 0.7, 0.9)]
    a = [(101200, 0.5, NAN, NAN, 0.3), (101200, *[NAN] * 4)]  # its models do not enclose the L0
    found = tables.reconstruction(at_l0(columns, b=b, a=a), variance=0.06)
    assert told(found, "b") == (  # the error is 0.35 of 0.06
        "parameters: 50,240; MSE: 0.0210; variance explained: 0.650 ± 0.071; cut to ten: 0.650; "
        "with least squares: 0.700; cosine of $w_j$ and its least-squares row: 0.90"
    )
    assert list(found.loc["a"]) == ["101,200", "0.0300", "0.500", "–", "–", "0.30"]


def test_ratios_have_a_row_for_each_loss_and_keep_its_order():
    rows = [(("z", "SGD", True), 0.9), (("z", "SGD", True), 0.8), (("z", "Adam", False), 0.5)]
    rows += [(("a", "SGD", True), 0.1), (("a", "Adam", False), 0.7)]
    found = tables.ratios(pd.DataFrame(rows, columns=["method", "ratio"]))
    assert told(found, "z") == "SGD, raw pixels: 0.85; Adam, centred: 0.50"
    assert list(found.index) == ["z", "a"] and list(found.loc["a"]) == ["0.10", "0.70"]


def test_competition_of_the_revised_loss_by_change():
    rows = [(1.0, "order", 0, 0.3, 7, 0.5), (10.0, "", 0, 0.4, 8, NAN), (1.0, "", 0, 0.6, 10, NAN)]
    rows += [(0.0, "", 0, 0.5, 9, 0.97), (0.0, "", 1, 0.51, 9, 0.95)]
    columns = ["weight", "change", "seed", "explained", "l0", "agreement"]
    found = tables.competition_of_revised(pd.DataFrame(rows, columns=columns))
    assert found.T.to_dict("list") == {
        "none": ["0.600", "10.0", "–"],
        "initial weights changed by a millionth": ["–", "–", "–"],
        "no competition": ["0.505 ± 0.007", "9.0", "0.950 to 0.970"],
        "competition × 10": ["0.400", "8.0", "–"],
        "another order of the digits": ["0.300", "7.0", "0.500"],
    }


def test_penalties_stand_in_the_row_of_their_kind():
    named = ("the revised loss", "the revised loss, L1", "the revised loss, saturating")
    named += ("L1 SAE", "SAE, log-sum-exp")  # SAE, saturating was not trained
    of = {name: [(i / 10, i / 100), (NAN, NAN)] for i, name in enumerate(named)}
    found = tables.penalties(at_l0("explained cut", **of))
    rows = [["0.100", "0.300", "0.030"], ["0.000", "0.400", "0.040"], ["0.200", "–", "–"]]
    assert found.values.tolist() == rows
    kinds = ["L1", "log-sum-exp", "without a denominator"]
    assert [text.split(",")[0] for text in found.index] == kinds


def test_units_have_the_probe_and_purity_of_seeds_and_the_agreement_of_pairs():
    at = at_l0("probe purity", a=[(90, 0.4), (92, 0.5)], b=[(NAN, 0.6)])
    agree = at_l0("agreement", a=[(0.8,), (0.9,), (NAN,)], b=[(0.1,)])
    found = tables.units(at, agree, ["b", "a"])
    assert told(found, "a") == (
        "probe, %: 91.0 ± 1.4; agreement of two seeds: 0.85; lowest and highest: 0.80 to 0.90; "
        "purity: 0.450 ± 0.071"
    )
    assert list(found.loc["b"]) == ["–", "0.10", "0.10", "0.600"]


def test_language_takes_each_number_from_its_method_and_quantity():
    values = {"explained": [0.5, 0.6], "least_squares": [0.7, 0.8], "recovered": [90, 92]}
    values |= {"agreement": [0.8, 0.81, 0.85]}
    numbers = [{"method": "b", "quantity": q, "seeds": seeds} for q, seeds in values.items()]
    numbers += [{"method": "a", "quantity": q, "seeds": []} for q in values]
    at = [{"method": m, "dead": d} for m, d in [("a", 4), ("a", 6), ("b", 1)]]
    found = tables.language({"rates": {"b": 0.1, "a": 0.2}, "numbers": numbers, "at_l0": at})
    assert told(found, "b") == (
        "variance explained: 0.550 ± 0.071; with least squares: 0.750; "
        "loss recovered, %: 91.0 ± 1.4; agreement: 0.82; dead units: 1"
    )
    assert list(found.loc["a"]) == ["–", "–", "–", "–", "5"]
