"""lab/criteria.py, and the rows of notebooks/claims.csv."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

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
# All of them hold
MEASURED = {"each": {"L0 6": 0.9, 10: [1, 2]}, "mean": 1, "size": 1, "sure": [1, 1.1, 1.2]}


@pytest.fixture
def claims(tmp_path, monkeypatch):
    monkeypatch.setattr(criteria, "CLAIMS", tmp_path / "claims.csv")
    criteria.CLAIMS.write_text(CLAIMS)


@pytest.mark.parametrize(
    "id, values, holds",
    [
        ("each", {"L0 6": [1, 1], "L0 10": [1, 0.89]}, False),
        ("each", [], False),
        ("mean", [1, 4.5], True),
        ("mean", [1, NAN], False),
        ("size", [-3, 2], True),
        ("size", [-3, 0.5], False),
        ("sure", [1, 3, -0.5], False),
        ("sure", 1, False),  # one value has no interval
    ],
)
def test_judge(id, values, holds, claims):
    rows = criteria.judge("n", MEASURED | {id: values})
    assert {row["id"]: row["holds"] for row in rows} == dict.fromkeys(MEASURED, True) | {id: holds}


def test_judge_wants_all_live_criteria_and_no_others(claims):
    for id in ("other", "former"):
        with pytest.raises(KeyError, match=id):
            criteria.judge("n", MEASURED | {id: 1})
    with pytest.raises(KeyError, match="sure"):
        criteria.judge("n", {id: 1 for id in MEASURED if id != "sure"})


def test_what_fails_is_said_with_its_place(claims):
    found = criteria.judge("n", MEASURED | {"each": {"L0 6": [1, 0.5], "L0 10": 1}, "mean": 4})
    said = "criteria that fail: each (L0 6): 1, 0.5 is not >= 0.9; mean: 4 is not < 3"
    assert criteria.failing(found) == said
    assert criteria.failing(criteria.judge("n", MEASURED)) == "criteria that fail: none"


def test_interval_is_student_s():
    values = np.random.default_rng(0).normal(size=5).tolist()
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert criteria.interval(values) == pytest.approx((np.mean(values), *expected))


# --- What is measured, of made-up data ----------------------------------------------------------


def assert_measured(notebook, found, expected):
    """The values are those expected, and all live criteria are measured, with which a run ends."""
    criteria.judge(notebook, found)
    for id, values in expected.items():
        places, measured = ({"": v} if not isinstance(v, dict) else v for v in (values, found[id]))
        wanted = {place: pytest.approx(v, nan_ok=True) for place, v in places.items()}
        assert measured == wanted, id


ABLATION = [  # run, seed, entropy, redundancy, L0
    ("A", 0, 4.1, NAN, 0),
    ("B", 0, 3.7, 1000, 18),
    ("B", 1, 3.8, 2000, 21),
    ("C", 0, 4.0, 20, 20),
    ("C", 1, 4.0, 40, 20),
    ("D", 0, 2.5, 28, 56),
    ("C without competition", 1, 4.0, 44, 22),
    ("C without competition", 0, 3.8, 19, 20),
]
RUNS = [  # change, weight, decorrelation, lambda, redundancies of two seeds
    ("", 0.0, 0, 1, (3000, 4000)),
    ("", 1.0, 0, 1, (1500, 1000)),
    ("", 0.0, 0, 0.3, (120, 150)),
    ("", 1.0, 0, 0.3, (100, 100)),
    ("", 0.0, 1, 1, (21, 25)),
    ("", 1.0, 1, 1, (20, 25)),
    ("", 10.0, 1, 1, (97, 98)),
    ("", 10.0, 1, 0.35, (9, 9)),
    ("shuffled", 10.0, 0, 1, (3300, 3600)),
    ("variances only", 10.0, 0, 1, (3000, 4400)),
    ("start", 1.0, 1, 1, (7, 7)),
]


def test_ablation_values():
    runs = [(*run, s, r[s], r[s] / 100) for *run, r in RUNS for s in (0, 1)]
    columns = ["change", "weight", "decorrelation", "lam", "seed", "redundancy", "agreement"]
    runs = pd.DataFrame(runs, columns=columns)
    table = pd.DataFrame(ABLATION, columns=["run", "seed", "entropy", "redundancy", "l0"])
    paper = {"entropy": [4, 3.5, 4, 2], "redundancy": [NAN, 1000, 20, 28]}
    paper = pd.DataFrame(paper, index=list("ABCD"))
    found = criteria.ablation_values(table, paper, [0.4, 0.5], [0.99, 0.98], runs, slope=1.04)
    expected = {
        "entropies": {"A": [0.1], "B": [0.2, 0.3], "C": [0, 0], "D": [0.5]},
        "redundancies": {"B": [0, math.log(2)], "C": [0, math.log(2)], "D": [0]},
        "not_sparser": [-0.1, 0.05],
        "idle": {"l0": [0, 0.1], "redundancy": [0.05, 0.1], "entropy": [0.05, 0]}
        | {"agreement": [0.01, 0.02]},
        "ten_times": [0.97, 0.98],
        "without_raises_redundancy": {"λ 0.3": [1.2, 1.5], "λ 1": [2, 4]},
        "idle_at_any_sparsity": {"λ 1": [0.05, 0]},
        "dose": {"1 after 0": [0.5, 0.25]},
        "dose_controls": {"shuffled": [0.1, -0.1], "variances only": [0, 0.1]},
        "convergence": 0.04,
    }
    assert_measured("2_ablation", found, expected)


def at_l0(column="explained", **values):
    """{method: one value a seed, or a pair} as `measures.at_l0` gives them."""
    rows = {(name, seed): v for name, of in values.items() for seed, v in enumerate(of)}
    return pd.DataFrame({column: rows.values()}, pd.MultiIndex.from_tuples(rows))


COMPETITION = [  # weight, change, seed, variance explained, agreement
    (1.0, "order", 0, 0.9, 0.1),
    (1.0, "", 1, 0.4, NAN),
    (1.0, "", 0, 0.5, NAN),
    (0.0, "", 0, 0.6, 0.9),
    (0.0, "", 1, 0.4, 0.5),
    (10.0, "", 0, 0.7, 0.8),
    (10.0, "", 1, 0.4, 0.8),
    (1.0, "start", 0, 0.9, 0.99),
    (1.0, "start", 1, 0.9, 1),
]


def test_benchmark_values():
    first = {"the revised loss": [0.6, 0.62], "the paper's loss, tuned": [0.5, 0.55]}
    first |= {"the revised loss, L1": [0.66, NAN], "the revised loss, saturating": [0.54, 0.62]}
    first |= {"SAE, log-sum-exp": [0.77, 0.84], "SAE, saturating": [0.77, 0.42]}
    at = {
        10: at_l0(**first, **{"L1 SAE": [0.7, 0.7]}),
        17.2: at_l0("ratio", **{"the revised loss": [0.8, NAN]}),
    }
    at[10]["ratio"] = at[10].explained + 0.3
    agree = {"the revised loss": [0.9, 0.85], "tied SAE": [0.7, 0.8], "L1 SAE": [0.6, 0.82]}
    agree = at_l0("agreement", **agree, **{"SAE, log-sum-exp": [0.99], "k-means": [0.99]})
    more = {"purity": 1, "baseline": 1, "fixed": 1}  # which are criteria as they are
    paper = [("SAE", 90.26, 0.03), ("model", 93.43, 0.143), ("model", 94.43, 0.243)]
    paper = pd.DataFrame(paper, columns=["model", "probe", "norm_matched"])
    paper["model"] = "the paper's " + paper.model
    columns = ["weight", "change", "seed", "explained", "agreement"]
    more |= {"paper": paper, "competition": pd.DataFrame(COMPETITION, columns=columns)}
    found = criteria.benchmark_values(at, agree, ["tied SAE", "L1 SAE", "TopK SAE"], **more)
    expected = {
        "their_probe": {"the paper's model": [0, 1], "the paper's SAE": [0]},
        "their_error": {"the paper's model": [0, 0.1]},
        "their_sae_error": {"the paper's SAE": [0.004]},
        "transpose": {"L0 10": [0.9, 0.92], "L0 17.2": [0.8, NAN]},
        "tuned": [0.1, 0.07],
        "resolution": [0.99, 1],
        "units_revised": [0.9, 0.5],
        "explained_revised": {"competition × 0": [0.2, 0], "competition × 10": [0.4, 0]},
        "penalty_revised": {"L1": [0.1], "saturating": [-0.1, 0]},
        "penalty_sae": [0.1, 0.2],
        "denominator_sae": [0, -0.5],
        "agreement": 0.03,
    }
    assert_measured("3_benchmark", found, expected)
    at[10] = at[10].drop(
        "SAE, log-sum-exp", level=0
    )  # what is compared with it fails, and does not raise
    found = criteria.benchmark_values(at, agree, ["tied SAE", "L1 SAE", "TopK SAE"], **more)
    assert np.isnan([*found["penalty_sae"], *found["denominator_sae"]]).all()


def test_of_language():
    values = {"the revised loss": [0.5, 0.6, 0.5]}
    at = at_l0(**values, **{"the revised loss, no competition": [0.55, 0.6, NAN]})
    assert_measured("language", criteria.language_values(at), {"language_competition": [0.1, 0]})
    without = criteria.language_values(at[:0])  # it fails, and does not raise
    assert_measured("language", without, {"language_competition": NAN})


def test_claims_have_ids_of_their_own_and_name_methods_that_there_are():
    rows = criteria.read_claims()
    assert None not in {key for row in rows for key in row}  # a comma too many
    assert len({row["id"] for row in rows}) == len(rows)
    known = {"language": language.SETTINGS, "3_benchmark": methods.benchmark_methods(1.0)}
    for row in rows:
        named = [] if row["end"] else filter(None, row["methods"].split(";"))
        assert row["notebook"] in check.RECORDS
        assert {*named} <= {*known.get(row["notebook"], ())}, row["id"]  # for `make check`
