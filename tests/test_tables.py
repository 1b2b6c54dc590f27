"""lab/tables.py: each table of made-up numbers, whose cells are computed by hand."""

import math
from itertools import product

import pandas as pd
import torch

from lab import tables
from lab.methods import MOMENTUM, SGD, Method

NAN = math.nan


def told(frame, name):
    """A row, as "column: cell; column: cell"."""
    return "; ".join(f"{column}: {cell}" for column, cell in frame.loc[name].items())


# --- Notebook 2 ---------------------------------------------------------------------------------


def test_configurations_stand_beside_the_paper_s_numbers():
    terms = pd.DataFrame({"log-sum-exp": [1, 1, 1, 0], "variance": [0, 1, 1, 1]}, list("ABCD"))
    rows = [
        {"run": name, "seed": seed, "low variance": 9, "dead": 4 * i, "redundancy": of + seed}
        | {"entropy": i + 0.25 * seed, "L0": 10 * i + seed}
        for i, (name, of) in enumerate({"D": 10, "C": 20, "B": 1800, "A": NAN}.items())
        for seed in (0, 2)
    ]
    found = tables.configurations(terms, pd.DataFrame(rows))
    assert list(found.index) == list("ABCD") and found.index.name == ""
    assert told(found, "C") == (
        "log-sum-exp: ✓; variance: ✓; dead units: 4; redundancy: 21.0 ± 1.4; "
        "redundancy, paper: 29; entropy: 1.25 ± 0.35; entropy, paper: 3.85; L0: 11.0 ± 1.4; "
        "L0, paper: 17.2"
    )
    assert found.redundancy["B"] == "1,801.0 ± 1.4" and found["redundancy, paper"]["B"] == "1,875"
    assert (
        found.redundancy["A"] == found["redundancy, paper"]["A"] == found["L0, paper"]["D"] == "–"
    )
    assert found["log-sum-exp"]["D"] == found.variance["A"] == ""


def test_competition_terms_have_the_two_parts_of_the_variance():
    parts = {"competition term": 0.5, "second order": 0.25, "Var(Z)": 30, "covariances": 20}
    of_b = [{"run": "B", "seed": s, "variances": 10 + s, "spread": 1} | parts for s in (0, 2)]
    of_c = [{"run": "C", "seed": 0, "variances": NAN} | dict.fromkeys(parts, 0.00254)]
    found = tables.competition_terms(pd.DataFrame(of_b + of_c))
    assert told(found, "B") == (
        r"competition term, nats: 0.5000; second order: 0.2500; $\mathrm{Var}(Z)$: 30; "
        "of it variances: 11 ± 1; of it covariances: 20"
    )
    assert list(found.loc["C"]) == ["0.0025", "0.0025", "0", "–", "0"]


def short_runs():
    """Short runs as of `ablation.measure`, and {what was changed: n}; run n has redundancies 100 n
    and 100 n + 2, competition terms n / 100, L0 and units replaced n and n + 1, and agreements
    1 - n / 1000 and .002 less."""
    cases = [*product((0.0, 1.0, 10.0), (0.0, 0.3, 1.0), (0.35, 1), [""])]
    cases += [(1.0, 1.0, lam, change) for lam in (0.35, 1) for change in ("start", "order")]
    cases += [(10.0, 0.0, 1, c) for c in ("shuffled", "variances only", "covariances only")]
    n = {case: number for number, case in enumerate(cases, 1)}
    columns = ("weight", "decorrelation", "lam", "change", "seed", "redundancy")
    columns += ("competition term", "L0", "replaced", "agreement")
    rows = [
        (*case, s, 100 * k + 2 * s, k / 100, k + s, k + s, 1 - k / 1000 - s / 500)
        for case, k in n.items()
        for s in (0, 1)
    ]
    return pd.DataFrame(rows, columns=columns), n


def test_doses_of_competition_in_b_in_c_and_in_a_sparser_c():
    runs, n = short_runs()
    found = tables.doses(runs)
    b, c, sparser = (n[10.0, d, lam, ""] for d, lam in ((0.0, 1), (1.0, 1), (1.0, 0.35)))
    assert told(found, "10") == (
        f"B: redundancy: {100 * b + 1:,} ± 1; B: competition term: {b / 100:.3f}; "
        f"B: L0: {b}.5 ± 0.7; C: redundancy: {100 * c + 1:,}.0; "
        f"C: competition term: {c / 100:.4f}; C: L0: {c}.5; "
        f"C: agreement: {0.998 - c / 1000:.3f} to {1 - c / 1000:.3f}; "
        f"C: units replaced: {c} to {c + 1}; "
        f"C at λ = 0.35: agreement: {0.998 - sparser / 1000:.3f} to {1 - sparser / 1000:.3f}; "
        f"C at λ = 0.35: units replaced: {sparser} to {sparser + 1}"
    )
    assert found["C: L0"]["1"] == f"{n[1.0, 1.0, 1, '']}.5"
    start = found.loc["1, initial weights changed by a millionth"]
    assert start["C: L0"] == f"{n[1.0, 1.0, 1, 'start']}.5" and start["B: L0"] == ""
    order = found.loc["1, another order of the digits"]
    assert order["C at λ = 0.35: units replaced"].startswith(f"{n[1.0, 1.0, 0.35, 'order']} to")
    assert list(found.index[:3]) == ["0", "1", "10"] and len(found) == 5
    only_c = tables.doses(runs[(runs.decorrelation == 1) & (runs.lam == 1)]).loc["0"]
    assert only_c["B: redundancy"] == only_c["C at λ = 0.35: agreement"] == "–"


def test_controls_stand_in_the_place_of_ten_times_the_competition_of_b():
    runs, n = short_runs()
    found = tables.controls(runs)
    names = {"nothing": (0.0, ""), "competition": (10.0, "")}
    names |= {name: (10.0, name) for name in ("covariances only", "variances only")}
    for name, (weight, change) in (names | {"shuffled competition": (10.0, "shuffled")}).items():
        k = n[weight, 0.0, 1, change]
        assert told(found, f"… {name}") == f"redundancy: {100 * k + 1:,} ± 1; L0: {k}.5 ± 0.7"
    assert tables.controls(runs[runs.weight == 0]).L0["… shuffled competition"] == "–"


def test_sparsities_divide_redundancy_without_competition_by_that_with_it():
    cases = [  # decorrelation, lambda, seed, redundancy with competition and without
        *[(0.0, 0.3, 0, 100, 150), (0.0, 0.3, 1, 100, 170), (0.0, 10.0, 0, 50, 55)],
        *[(1.0, 0.3, 0, 20, 19), (1.0, 3.0, 0, 7, NAN)],
    ]
    rows = [(1.0, "", d, lam, s, having, lam * 10 + s) for d, lam, s, having, _ in cases]
    rows += [(0.0, "", d, lam, s, without, 1) for d, lam, s, _, without in cases]
    rows += [(10.0, "", 0.0, 0.3, 0, 1, 1), (1.0, "start", 1.0, 0.3, 0, 1, 1)]
    columns = ["weight", "change", "decorrelation", "lam", "seed", "redundancy", "L0"]
    found = tables.sparsities(pd.DataFrame(rows, columns=columns).dropna())
    name = "redundancy, without competition over with it"
    assert told(found, "0.3") == (
        f"B: L0: 3.5 ± 0.7; B: {name}: 1.60 ± 0.14; B: seeds: 2; C: L0: 3.0; C: {name}: 0.95; "
        "C: seeds: 1"
    )
    assert list(found.index) == ["0.3", "10"]
    assert list(found.loc["10"]) == ["100.0", "1.10", "1", "–", "–", "–"]


def test_variants_have_their_own_l0():
    table = pd.DataFrame({"variance": [1, 64], "minibatch": [1024, 128]}, index=[3, 5])
    active = {(5, 0): 2, (3, 0): 1, (5, 1): 2, (3, 1): 3}
    energies = {run: (torch.arange(4) < n).float().expand(6, 4) for run, n in active.items()}
    found = tables.variants(table, energies)
    assert told(found, 3) == "variance: 1; minibatch: 1,024; L0: 2.0 ± 1.4"
    assert told(found, 5) == "variance: 64; minibatch: 128; L0: 2.0"


# --- Notebook 3 ---------------------------------------------------------------------------------


def test_the_paper_s_comparison_has_its_numbers_by_name_of_the_model():
    columns = ["model", "parameters", "l0", "dead", "probe", "norm_matched", "mse", "explained"]
    rows = [
        ("the paper's model", 50240, 17, 0, 93, 0.14, 0.04, 0.4),
        ("the paper's model", 50240, 18, 2, 94, 0.15, 0.05, 0.5),
        ("the paper's SAE", 101200, 32, 30, 90, 0.03, 0.01, 0.9),
    ]
    found = tables.paper_comparison(pd.DataFrame(rows, columns=columns))
    assert told(found, "the paper's model") == (
        "parameters: 50,240; L0: 17.5 ± 0.7; L0, paper: 17.2; dead units: 1 ± 1; "
        "probe, %: 93.5 ± 0.7; probe, %, paper: 93.4; MSE, norm-matched: 0.145 ± 0.007; "
        "MSE, norm-matched, paper: 0.143; MSE: 0.045 ± 0.007"
    )
    assert list(found.loc["the paper's SAE"])[:3] == ["101,200", "32.0", "32.2"]
    assert list(found.loc["the paper's SAE"])[5:] == ["90.3", "0.030", "0.026", "0.010"]


def test_settings_of_methods_name_optimiser_rate_and_decoder():
    look = ("k", "o", "-")
    chosen = {
        "plain": Method(len, (1,), 0.004, look=look, trained_on="a loss"),
        "fast": Method(len, (1,), 0.01, raw=True, optimizer=MOMENTUM, slow_start=True, look=look),
        "tied": Method(len, (1,), 0.3, sae={"tied": True}, optimizer=SGD, look=look),
        "own": Method(len, (1,), 0.001, sae={}, look=look),
        "k-means": Method(None, (5,), look=look),
        "control": Method(len, (1,), 0.001),
    }
    found = tables.method_settings(chosen)
    assert list(found.index) == ["plain", "fast", "tied", "own", "k-means"]
    fast = "SGD with momentum 0.9, 0.01, slow start"
    assert list(found["optimiser, rate"]) == ["Adam, 0.004", fast, "SGD, 0.3", "Adam, 0.001", "–"]
    W, own = "$W^\\top$", "$V$, trained"
    assert list(found.decoder) == [W, W, f"{W}, trained", own, W]
    assert list(found.pixels) == ["centred", "raw", *["centred"] * 3]
    assert found["trained on"]["plain"] == "a loss"


def at_l0(columns, **methods):
    """{method: [(a value for each column) for each seed]} as `measures.at_l0` gives them."""
    rows = {(name, seed): v for name, of in methods.items() for seed, v in enumerate(of)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns.split()).set_index(
        pd.MultiIndex.from_tuples(rows)
    )


def test_reconstruction_turns_variance_explained_into_an_error():
    columns = "parameters explained cut least_squares cosine"
    b = [(50240, 0.6, 0.65, 0.7, 0.9), (50240, 0.7, NAN, 0.7, 0.9)]
    a = [(101200, 0.5, 0.55, NAN, 0.333), (101200, NAN, NAN, NAN, NAN)]  # L0 was not enclosed
    found = tables.reconstruction(at_l0(columns, b=b, a=a, none=[(7, *[NAN] * 4)]), variance=0.06)
    assert told(found, "b") == (  # the error is 0.35 of 0.06
        "parameters: 50,240; MSE: 0.0210; variance explained: 0.650 ± 0.071; cut to ten: 0.650; "
        "with least squares: 0.700; cosine of $w_j$ and its least-squares row: 0.90"
    )
    assert list(found.loc["a"]) == ["101,200", "0.0300", "0.500", "0.550", "–", "0.33"]
    assert list(found.loc["none"]) == ["7", *"–––––"] and list(found.index) == ["b", "a", "none"]


def test_ratios_have_a_row_for_each_loss_and_keep_its_order():
    cases = {("z", "SGD", True): (0.9, 0.8), ("z", "Adam", False): (0.5, 0.5)}
    cases |= {("a", "SGD", True): (0.1, 0.2), ("a", "Adam", False): (0.7, 0.7)}
    rows = [{"method": case, "ratio": r, "l0": 10} for case, rs in cases.items() for r in rs]
    found = tables.ratios(pd.DataFrame(rows))
    assert list(found.index) == ["z", "a"]
    assert told(found, "z") == "SGD, raw pixels: 0.85; Adam, centred: 0.50"
    assert told(found, "a") == "SGD, raw pixels: 0.15; Adam, centred: 0.70"


def test_competition_of_the_revised_loss_by_change():
    rows = [(1.0, "order", 0, 0.3, 7, 0.5), (10.0, "", 0, 0.4, 8, NAN), (1.0, "", 0, 0.6, 10, NAN)]
    rows += [(0.0, "", 0, 0.5, 9, 0.97), (0.0, "", 1, 0.51, 9, 0.95)]
    columns = ["weight", "change", "seed", "explained", "L0", "agreement"]
    found = tables.competition_of_revised(pd.DataFrame(rows, columns=columns))
    assert told(found, "no competition") == (
        "variance explained: 0.505 ± 0.007; L0: 9.0; "
        "agreement with the original units: 0.950 to 0.970"
    )
    assert list(found.loc["none"]) == ["0.600", "10.0", "–"]
    assert list(found.loc["competition × 10"]) == ["0.400", "8.0", "–"]
    assert list(found.loc["another order of the digits"]) == ["0.300", "7.0", "0.500"]
    assert list(found.loc["initial weights changed by a millionth"]) == ["–"] * 3


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
    agree = at_l0("agreement", a=[(0.8,), (0.9,), (NAN,)])
    found = tables.units(at, agree, ["b", "a", "missing"])
    assert told(found, "a") == (
        "probe, %: 91.0 ± 1.4; agreement of two seeds: 0.85; lowest and highest: 0.80 to 0.90; "
        "purity: 0.450 ± 0.071"
    )
    assert list(found.loc["b"]) == ["–", "–", "–", "0.600"]
    assert list(found.loc["missing"]) == ["–"] * 4 and list(found.index) == ["b", "a", "missing"]


def test_language_takes_each_number_from_its_method_and_quantity():
    values = {"explained": [0.5, 0.6], "least_squares": [0.7, 0.8], "recovered": [90, 92]}
    values |= {"agreement": [0.8, 0.81, 0.85]}
    numbers = [
        {"method": m, "quantity": q, "seeds": seeds if m == "b" else []}
        for m in "ab"
        for q, seeds in values.items()
    ]
    at = [
        {"method": m, "seed": s, "dead": d} for m, s, d in [*zip("aa", "01", (4, 6)), ("b", 0, 1)]
    ]
    found = tables.language({"rates": {"b": 0.1, "a": 0.2}, "numbers": numbers, "at_l0": at})
    assert list(found.index) == ["b", "a"]
    assert told(found, "b") == (
        "variance explained: 0.550 ± 0.071; with least squares: 0.750; "
        "loss recovered, %: 91.0 ± 1.4; agreement: 0.82; dead units: 1"
    )
    assert list(found.loc["a"]) == ["–", "–", "–", "–", "5"]
