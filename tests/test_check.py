"""lab/check.py, on runs made by hand, and on those in figures/ with worse classifiers."""

import json
import subprocess

import numpy as np
import pytest

from lab import NOTEBOOKS, ROOT, check, record

A, B, C = ({"loss": name, "seed": 0, "l0": l0} for name, l0 in {"a": 5, "b": 9, "c": 7}.items())


def a_run(seconds=1, claim="Good.", measured=(0.9, 0.92), comparison=">", bound=0.89, **changed):
    criteria = [record.criterion(claim, measured, comparison, bound)]
    content = {"parameters": {"K": changed.get("K", 64)}, "criteria": criteria}
    content["environment"] = {"commit": "1234567", "seconds": seconds}
    return content | {"tables": {"runs": changed.get("rows", [A, B])}}


CASES = """classifier 90 89.6 89.4; recovered 80 78.1 77.9; parameters 50240 50240 50241;
explained 0.5 0.519 0.521; explained_best 0.5 0.519 0.521; l0 10 10.29 10.305; dead 3 4 5;
agreement 0.99 0.981 0.979; redundancy 0.3 0 -0.3; step and other rows 0.001 -0.02 -0.03;
living units 67 69 70; epoch 3 3.09 3.5; width 3e-15 9e-15 2e-6; width -10.5 -10.8 -10.9"""


def test_each_column_has_its_tolerance_and_only_the_records_own_spread_allows_more():
    for case in CASES.split(";"):
        column, *numbers = case.strip().rsplit(maxsplit=3)
        for n in (1, 3):
            there, near, far = (dict.fromkeys(range(n), float(number)) for number in numbers)
            assert check.agree(there, near, column) and not check.agree(there, far, column)
            assert not check.agree(there, there | {3: there[0]}, column)
    alike, apart = {0: 90.0, 1: 90.0, 2: 90.0}, {0: 89.0, 1: 90.0, 2: 91.0}
    for shift, same in {1.6: True, 1.7: False}.items():  # two errors are 2 * sqrt(2 / 3) = 1.63
        assert check.agree(apart, {s: 90 - shift for s in apart}, "classifier") == same
        assert not check.agree(alike, {s: apart[s] - shift for s in apart}, "classifier")


def test_classifiers_that_are_worse_by_one_and_a_half_points_are_seen():
    """In each row of figures/ of a standard deviation over seeds below 0.9 points."""
    seen = []
    for name in NOTEBOOKS[1:]:
        run = json.loads((ROOT / f"figures/{name}.json").read_text("utf-8"))
        for (table, *which, column), a in check.numbers(run).items():
            if column == "classifier" and np.std([*a.values()], ddof=len(a) > 1) < 0.9:
                assert not check.agree(a, {seed: a[seed] - 1.5 for seed in a}, column), which
                seen.append(table)
    assert {"ablation", "paper", "benchmark"} <= {*seen}


@pytest.mark.parametrize(
    "changed, starts",
    [
        ({"rows": [C, B, A]}, ["runs, c, l0: nothing in the record, 7 in your run"]),
        ({"rows": [A]}, ["runs, b, l0: 9 in the record, nothing in your run"]),
        ({"rows": [A, B | {"l0": 9.9}]}, ["runs, b, l0: 9 in the record, 9.9"]),
        ({"bound": 0.88}, ["criterion, Good., >: 0.89 in the record, 0.88"]),
        ({"comparison": ">="}, ["criterion, Good., >: 0.89", "criterion, Good., >=: nothing"]),
        ({"measured": (0.88, 0.92)}, ["note: by a hair, criterion, Good., holds"]),
        ({"measured": (float("nan"), 0.92)}, ["criterion, Good., holds"]),
    ],
)
def test_what_differs_is_named_and_no_number_moves_to_another_row(changed, starts):
    lines = [*filter(None, check.compare(a_run(), a_run(2, **changed))[1:])]
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))


def test_the_exit_status_is_zero_if_all_notebooks_were_compared_and_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()

    def status(*runs):  # of notebooks, and of the language model
        for name, run in zip([*NOTEBOOKS, "language"], runs):
            path = tmp_path / f"figures/{name}.json"
            path.write_text(json.dumps(run)) if run else path.unlink(missing_ok=True)
        return check.check()

    same, run, worse = a_run(), a_run(2), a_run(2, rows=[A])
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b@c commit -q -m record"):
        assert status(same, same, same, same) == 1  # without git, and the record itself
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    for of_language in (None, same, a_run(2, K=9), run):
        assert status(run, run, run, of_language) == 0
    for third in (None, same, a_run(2, K=9), worse):
        assert status(run, run, third, run) == 1
    assert status(run, run, run, worse) == 1
