"""lab/criteria.py, and the rows of notebooks/claims.csv."""

import csv
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from lab import check, criteria, language, methods

NAN = math.nan
CLAIMS = """id,notebook,by,methods,claim,quantity,statistic,comparison,bound,tolerance,paper,end
each,n,us,the revised loss,It is good.,a,each,>=,0.9,0.1,,
mean,n,us,,It is fast.,b,mean,<,3,0.1,2 s,
size,n,us,,It is small.,c,|mean|,<=,1,0.1,,
sure,n,us,,It is sure.,d,lower end,>,0,0.1,,
former,n,us,,It was good.,e,mean,>,0,0.1,,failed
other,m,us,,It is good elsewhere.,f,mean,>,0,0.1,,
"""
MEASURED = {"each": 1, "mean": 1, "size": 1, "sure": [1.0, 1.1, 1.2]}  # all of them hold


@pytest.fixture
def claims(tmp_path, monkeypatch):
    monkeypatch.setattr(criteria, "CLAIMS", tmp_path / "claims.csv")
    criteria.CLAIMS.write_text(CLAIMS)


@pytest.mark.parametrize(
    "id, values, holds",
    [
        ("each", [0.95, 0.9], True),
        ("each", {"L0 6": np.array(0.9), 10: torch.tensor([1.0, 2.0])}, True),
        ("each", [1, 0.89], False),
        ("each", {"L0 6": [1, 1], "L0 10": [1, 0]}, False),
        ("each", [1, NAN], False),
        ("each", [], False),
        ("each", {}, False),
        ("mean", [1, 4.5], True),
        ("mean", pd.Series([2.9]), True),
        ("mean", 3, False),
        ("mean", [1, NAN], False),
        ("size", [-3, 2], True),
        ("size", [-3, 0.5], False),
        ("sure", [1, 1.2, 0.9], True),
        ("sure", [1, 3, -0.5], False),
        ("sure", [1, 1, NAN], False),
        ("sure", 1, False),  # one value has no interval
    ],
)
def test_judge(id, values, holds, claims):
    rows = criteria.judge("n", MEASURED | {id: values})
    assert {row["id"]: row["holds"] for row in rows} == dict.fromkeys(MEASURED, True) | {id: holds}


def test_judge_wants_all_live_criteria_and_no_others(claims):
    for id in ("unknown", "other", "former"):
        with pytest.raises(KeyError, match=id):
            criteria.judge("n", MEASURED | {id: 1})
    with pytest.raises(KeyError, match="sure"):
        criteria.judge("n", {id: 1 for id in MEASURED if id != "sure"})


def test_what_fails_is_said_with_its_place(claims):
    found = criteria.judge("n", MEASURED | {"each": {"L0 6": [1, 0.5], "L0 10": 1}, "mean": 4})
    assert criteria.holds_at(found[0], "L0 10") and not criteria.holds_at(found[0], "L0 6")
    assert not criteria.holds_at(found[0] | {"judged": {"": [None]}}, "")  # a NaN of a record
    said = "criteria that fail: each (L0 6): 1, 0.5 is not >= 0.9; mean: 4 is not < 3"
    assert criteria.failing(found) == said
    assert criteria.failing(criteria.judge("n", MEASURED)) == "criteria that fail: none"


def test_interval_is_student_s():
    values = np.random.default_rng(0).normal(size=5).tolist()
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert criteria.interval(values) == pytest.approx((np.mean(values), *expected))
    assert criteria.interval([2]) == pytest.approx((2, NAN, NAN), nan_ok=True)
    assert all(map(math.isnan, criteria.interval([])))


# --- What is measured, of made-up data ----------------------------------------------------------


def frame(names, rows):
    """A DataFrame of lines of text: a name for each of `names`, and a number for each other column
    of the first line."""
    found = [[cell.strip() for cell in line.split("|")] for line in rows.strip().splitlines()]
    columns = found[0]
    numbers = [column for column in columns if column not in names.split()]
    return pd.DataFrame(found[1:], columns=columns).astype(dict.fromkeys(numbers, float))


def assert_measured(found, expected):
    assert {*found} == {*expected}
    for id, values in expected.items():
        places, measured = ({"": v} if not isinstance(v, dict) else v for v in (values, found[id]))
        wanted = {place: pytest.approx(v, nan_ok=True) for place, v in places.items()}
        assert measured == wanted, id


ABLATION = """
run | seed | entropy | redundancy | L0
A | 0 | 4.1 | nan | 0
A | 1 | 4.2 | nan | 0
B | 0 | 3.7 | 1000 | 18
B | 1 | 3.8 | 2000 | 21
C | 0 | 4.0 | 20 | 20
C | 1 | 4.0 | 40 | 20
D | 0 | 2.0 | 28 | 56
D | 1 | 2.5 | 28 | 56
C without competition | 1 | 4.0 | 44 | 22
C without competition | 0 | 3.8 | 19 | 20
"""
RUNS = {  # (change, weight, decorrelation, lambda): (redundancies, agreements) of two seeds
    ("", 0, 0, 1): ((3000, 4000), (0.1, 0.1)),
    ("", 1, 0, 1): ((1500, 1000), (0.2, 0.2)),
    ("", 3, 0, 1): ((750, 900), (0.3, 0.3)),
    ("", 0, 0, 0.3): ((120, 150), (0.4, 0.4)),
    ("", 1, 0, 0.3): ((100, 100), (0.5, 0.5)),
    ("", 0, 1, 1): ((21, 25), (0.6, 0.6)),
    ("", 1, 1, 1): ((20, 25), (NAN, NAN)),
    ("", 10, 1, 1): ((30, 30), (0.97, 0.98)),
    ("", 10, 1, 0.35): ((9, 9), (0.7, 0.7)),
    ("", 1, 1, 10): ((5, 5), (0.8, 0.8)),  # and none without competition
    ("", 0, 0.3, 1): ((60, 60), (0.9, 0.9)),
    ("", 1, 0.3, 1): ((1, 1), (0.9, 0.9)),
    ("shuffled", 10, 0, 1): ((3300, 3600), (0, 0)),
    ("variances only", 10, 0, 1): ((3000, 4400), (0, 0)),
    ("start", 1, 1, 1): ((7, 7), (0, 0)),
}


def of_ablation():
    runs = [(*run, s, r[s], a[s]) for run, (r, a) in RUNS.items() for s in (1, 0)]
    columns = ["change", "weight", "decorrelation", "lam", "seed", "redundancy", "agreement"]
    paper = {"entropy": [4, 3.5, 4, 2], "redundancy": [NAN, 1000, 20, 28]}
    return criteria.of_ablation(
        frame("run", ABLATION),
        pd.DataFrame(paper, index=list("ABCD")),
        strong=[0.4, 0.5],
        removal=[0.99, 0.98],
        runs=pd.DataFrame(runs, columns=columns).sort_values(["change", "seed"]),
        slope=1.04,
    )


def test_of_ablation():
    log2 = math.log(2)
    expected = {
        "entropies": {"A": [0.1, 0.2], "B": [0.2, 0.3], "C": [0, 0], "D": [0, 0.5]},
        "redundancies": {"B": [0, log2], "C": [0, log2], "D": [0, 0]},
        "not_sparser": [-0.1, 0.05],
        "strong_decorrelation": [0.4, 0.5],
        "idle": {"L0": [0, 0.1], "redundancy": [0.05, 0.1], "entropy": [0.05, 0]}
        | {"agreement": [0.01, 0.02]},
        "ten_times": [0.97, 0.98],
        "without_raises_redundancy": {"λ 0.3": [1.2, 1.5], "λ 1": [2, 4]},
        "idle_at_any_sparsity": {"λ 1": [0.05, 0]},
        "dose": {"1 after 0": [0.5, 0.25], "3 after 1": [0.5, 0.9]},
        "dose_controls": {"shuffled": [0.1, -0.1], "variances only": [0, 0.1]},
        "convergence": 0.04,
    }
    assert_measured(of_ablation(), expected)


def at_l0(values, column="explained"):
    """{method: one value a seed, or a pair} as `measures.at_l0` gives them."""
    rows = {(name, seed): v for name, of in values.items() for seed, v in enumerate(of)}
    return pd.DataFrame({column: rows.values()}, pd.MultiIndex.from_tuples(rows))


COMPETITION = """
weight | change | seed | explained | agreement
1 | order | 0 | 0.9 | 0.1
1 | | 1 | 0.4 | nan
1 | | 0 | 0.5 | nan
0 | | 0 | 0.6 | 0.9
0 | | 1 | 0.4 | 0.5
10 | | 0 | 0.7 | 0.8
10 | | 1 | 0.4 | 0.8
1 | start | 0 | 0.9 | 0.99
1 | start | 1 | 0.9 | 1
"""
PAPER = """
model | probe | norm_matched
the paper's SAE | 90.26 | 0.03
the paper's model | 93.43 | 0.143
the paper's model | 94.43 | 0.243
"""


def of_benchmark():
    first = {"the revised loss": [0.6, 0.62], "the paper's loss, tuned": [0.5, 0.55]}
    first |= {"the revised loss, L1": [0.66, NAN], "the revised loss, saturating": [0.54, 0.62]}
    first |= {"SAE, log-sum-exp": [0.77, 0.84], "SAE, saturating": [0.77, 0.42]}
    at = {10: at_l0(first | {"L1 SAE": [0.7, 0.7]}), 17.2: at_l0({"the revised loss": [0.1, 0.1]})}
    at[10]["ratio"] = at[10].explained + 0.3
    at[17.2]["ratio"] = [0.8, NAN]
    agree = {"the revised loss": [0.9, 0.85], "tied SAE": [0.7, 0.8], "L1 SAE": [0.6, 0.82]}
    agree |= {"SAE, log-sum-exp": [0.99], "k-means": [0.99]}  # a control, and no SAE
    more = {"purity": {"L0 10": [0.1, 0.2]}, "baseline": {"L0 11": [1.01]}, "fixed": [-0.2, -0.3]}
    agree, competition = at_l0(agree, "agreement"), frame("change", COMPETITION)
    return criteria.of_benchmark(at, agree, frame("model", PAPER), competition=competition, **more)


def test_of_benchmark():
    expected = {
        "their_probe": {"the paper's model": [0, 1], "the paper's SAE": [0]},
        "their_error": {"the paper's model": [0, 0.1]},
        "their_sae_error": {"the paper's SAE": [0.004]},
        "baseline": {"L0 11": [1.01]},
        "transpose": {"L0 10": [0.9, 0.92], "L0 17.2": [0.8, NAN]},
        "tuned": [0.1, 0.07],
        "fixed_bias": [-0.2, -0.3],
        "resolution": [0.99, 1],
        "units_revised": [0.9, 0.5],
        "explained_revised": {"competition × 0": [0.2, 0], "competition × 10": [0.4, 0]},
        "penalty_revised": {"L1": [0.1], "saturating": [-0.1, 0]},
        "penalty_sae": [0.1, 0.2],
        "denominator_sae": [0, -0.5],
        "purity_paper": {"L0 10": [0.1, 0.2]},
        "agreement": 0.03,
    }
    assert_measured(of_benchmark(), expected)


def of_language(n=6):
    names = ("the revised loss", "the revised loss, no competition")
    at = at_l0(dict(zip(names, ([0.5, 0.6, 0.5], [0.55, 0.6, NAN]))))
    return criteria.of_language(at.iloc[:n])


def test_of_language():
    assert of_language() == {"language_competition": pytest.approx([0.1, 0])}
    assert math.isnan(of_language(0)["language_competition"])  # it fails, and does not raise


@pytest.mark.parametrize(
    "name, measured",
    {"2_ablation": of_ablation, "3_benchmark": of_benchmark, "language": of_language}.items(),
)
def test_what_is_measured_are_the_live_criteria(name, measured):
    criteria.judge(name, measured())  # at the end of a run of an hour it would be late


def test_rows_of_claims_csv():
    with open(criteria.CLAIMS, newline="", encoding="utf-8") as file:
        text = file.read()
    rows = list(csv.DictReader(text.splitlines()))
    assert criteria.read_claims() == rows and None not in {key for row in rows for key in row}
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["notebook"] for row in rows} == {*check.RECORDS}
    assert "edition" not in text.lower()
    known = {"language": language.SETTINGS, "3_benchmark": methods.methods(1.0)}
    for row in rows:
        assert row["claim"] and row["by"] in ("us", "paper")
        if not row["end"]:
            assert row["statistic"] in criteria.STATISTICS
            assert row["comparison"] in criteria.COMPARISONS and row["quantity"]
            assert math.isfinite(float(row["bound"])) and 0 < float(row["tolerance"]) < math.inf
            named = [name for name in row["methods"].split(";") if name]
            assert {*named} <= {*known.get(row["notebook"], ())}, row["id"]  # for `make check`
