"""lab/check.py, on made-up records in a repository of their own."""

import json
import subprocess

import pytest

from lab import check, criteria, record

CLAIMS = """id,notebook,by,methods,claim,quantity,statistic,comparison,bound,tolerance,paper,end
each,n,us,the revised loss,It is good.,a,each,>=,0.9,0.001,,
mean,n,us,,It is fast.,b,mean,<,3,0.1,,
"""
MEASURED = {"each": {"L0 10": [0.92, 0.94, 0.96]}, "mean": [1.8, 1.9, 2.0]}
METHODS = ("the paper's loss", "the revised loss")


def judged(**measured):
    return criteria.judge("n", MEASURED | measured)


def a_record():
    seeds = {"explained": [0.4, 0.41, 0.42], "least_squares": [0.6, 0.6, 0.6]}
    number = {"place": "L0 10", "tolerance": 0.01}
    return {
        "parameters": {"SEEDS": [0, 1, 2], "QUICK": False, "DEVICE": "auto", "OUTPUT": ""},
        "environment": {"commit": "1234567"},
        "criteria": judged(),
        "numbers": [
            number | {"method": m, "quantity": q, "seeds": seeds[q]} for m in METHODS for q in seeds
        ],
        "rates": dict.fromkeys(METHODS, 0.004),
    }


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The folder of a committed record of each run."""
    for module in (check, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(criteria, "CLAIMS", tmp_path / "claims.csv")
    criteria.CLAIMS.write_text(CLAIMS)
    (tmp_path / "figures").mkdir()
    for name in check.RECORDS:
        (tmp_path / "figures" / f"{name}.json").write_text(json.dumps(a_record()))
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b@c commit -q -m record"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    return tmp_path / "figures"


def seeds(*values, **more):
    return lambda run: run["numbers"][0].update(seeds=values, **more)


def verdict(**measured):
    return lambda run: run.update(criteria=judged(**measured))


def settings(**changed):
    return lambda run: run["parameters"].update(changed)


def retune(run):
    """One method at another rate: its numbers are far off, and those of no other."""
    run["rates"]["the revised loss"] = 0.1
    run["criteria"] = judged(each={"L0 10": [0.99, 0.99, 0.99]})
    for number in run["numbers"][2:]:
        number["seeds"] = [9.0, 9.0, 9.0]


RETUNED = """2 of 2 verdicts and 3 of 3 numbers agree
  trained at another learning rate: the revised loss
  left out: the revised loss, explained, L0 10
  left out: the revised loss, least_squares, L0 10
  left out: each, a, L0 10
"""


@pytest.mark.parametrize(
    "change, status, said",
    [
        # A number may be off by 5 standard errors of .0082
        (seeds(0.44, 0.45, 0.46), 0, "2 of 2 verdicts and 6 of 6 numbers agree"),
        (seeds(0.442, 0.452, 0.462), 1, "NO: the paper's loss, explained, L0 10: 0.41 in the rec"),
        (seeds(0.41, 0.42, None), 1, "3 seeds in the record, 2 in your run"),
        (seeds(0.4, 0.41, 0.42, place="L0 6"), 1, "L0 6: 0 seeds in the record, 3 in your run"),
        # Verdicts: .92 is one standard deviation above its bound, 1.9 far below its own
        (verdict(each={"L0 10": [0.89, 0.94, 0.96]}), 0, "close to its bound: each: holds in the"),
        (verdict(mean=[5, 5, 5]), 1, "NO: mean: holds in the record, fails in your run"),
        (lambda run: run["criteria"][0].update(bound=0.8), 1, "NO: each: not the same criterion"),
        (settings(OUTPUT="elsewhere", DEVICE="cuda"), 0, "a run of commit 1234567"),
        (settings(QUICK=True), 2, "other parameters than the record: QUICK = True"),
        (retune, 0, RETUNED),
    ],
)
def test_a_changed_run_is_compared_with_the_record(change, status, said, figures, capsys):
    run = a_record()
    change(run)
    (figures / "2_ablation.json").write_text(json.dumps(run))
    assert check.check() == status
    out = capsys.readouterr().out
    assert said in out
    *_, last = out.splitlines()
    assert last.startswith(f"{int(status != 2)} of 4 files are runs of yours: ")
    assert status == 2 or "1_theorem is the committed record itself" in last


def test_files_that_cannot_be_compared_are_named(figures, monkeypatch, capsys):
    assert check.check() == 0  # the record itself
    said = capsys.readouterr().out
    assert said.count("this shows nothing about a run of yours") == 4
    assert said.endswith("0 of 4 files are runs of yours: nothing was compared\n")
    monkeypatch.setattr(check, "RECORDS", ("1_theorem", "2_ablation", "new"))
    (figures / "1_theorem.json").unlink()
    (figures / "2_ablation.json").write_text('{"parameters": {')
    assert check.check() == 2
    said = capsys.readouterr().out
    assert "1_theorem.json: it is missing: run `make figures`" in said
    assert "2_ablation.json: it is damaged: run `make figures`" in said
    assert "new.json: no version of it is committed" in said


def test_one_seed_has_no_standard_error_and_needs_the_tolerance():
    def agree(a, b, tolerance=0.01):
        return check.compare_numbers("n", {"seeds": [a], "tolerance": tolerance}, {"seeds": [b]})[0]

    assert agree(0.41, 0.405) and not agree(0.41, 0.43)
    assert agree(1e5, 1e5 + 1e-7, tolerance=0)  # rounding
    assert agree(None, None)


def test_a_verdict_of_the_record_within_three_errors_of_its_bound_may_differ(figures):
    """Errors of a mean, or standard deviations where each seed is judged."""

    def agree(id, measured, other):
        pair = ({row["id"]: row for row in judged(**{id: m})}[id] for m in (measured, other))
        return check.compare_verdicts(id, *pair)[0]

    assert agree("mean", [2.75, 2.85, 2.95], [9, 9, 9])
    assert not agree("mean", [2.7, 2.8, 2.9], [9, 9, 9])
    assert not agree("mean", [2.9], [9]) and not agree("mean", [2.9, 2.9], [9, 9])  # no spread
    places = {"near": [0.95, 0.97, 0.99], "far": [0.98, 0.98, 0.99]}
    assert agree("each", places, places | {"near": [0, 0, 0]})
    assert not agree("each", places, dict.fromkeys(places, [0, 0, 0]))
