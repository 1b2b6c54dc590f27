"""lab/check.py, on made-up records, and in a repository of their own."""

import json
import shutil
import subprocess

import pytest

from lab import check, record


def a_record(B=(1000.0, 2000.0, 3000.0), C=(28.9, 29.1, 29.3), **changed):
    """Of models C, whose seeds are alike, and B, whose seeds are not."""
    value = {"dead": 3, "measured": (0.9, 0.92), "path": 37.0, "QUICK": False} | changed
    runs = [
        {"redundancy": number, "seed": seed, "dead": value["dead"], "model": model}
        for model, numbers in {"B": B, "C": C}.items()
        for seed, number in enumerate(numbers)
    ]
    return {
        "parameters": {"SEEDS": [0, 1, 2], "QUICK": value["QUICK"]},
        "environment": {"commit": "1234567"},
        "criteria": [record.criterion("It is good.", value["measured"], ">", 0.89)],
        "tables": {"runs": runs, "path": [{"what": "L0", "value": value["path"], "seed": 0}]},
    }


@pytest.mark.parametrize(
    "changed, differing",
    [
        ({"C": (29.2, 29.4, 29.6)}, []),
        ({"C": (31.8, 32.0, 32.2)}, ["runs, C, redundancy: 29.1 in the record, 32 in your run"]),
        ({"B": (1400.0, 2400.0, 3100.0)}, []),  # by 300, with an error of 100
        ({"B": (1450.0, 2500.0, 3550.0)}, ["runs, B, redundancy"]),  # by 500, of 29
        ({"C": (28.9, 29.1)}, ["runs, C, dead", "runs, C, redundancy"]),
        ({"C": (28.9, 29.1, None)}, ["runs, C, redundancy"]),
        ({"C": ()}, ["runs, C, dead", "runs, C, redundancy: 29.1 in the record, nothing"]),
        ({"dead": 4}, []),
        ({"dead": 5}, ["runs, B, dead: 3 in the record, 5", "runs, C, dead"]),
        ({"measured": (0.88, 0.92)}, ["note: by a hair, criterion, It is good."]),
        ({"measured": (0.5, 0.52)}, ["criterion, It is good."]),
        ({"measured": (float("nan"), 0.92)}, ["criterion, It is good."]),
        ({"path": 37.4}, []),
        ({"path": 40.0}, ["path, L0, value: 37 in the record, 40"]),
    ],
)
def test_what_differs_is_named(changed, differing):
    """In a run, or in the record."""
    lines = sorted(filter(None, check.compare(a_record(), a_record(**changed))[1:]))
    assert all(line.startswith(start) for line, start in zip(lines, differing, strict=True))
    assert len([*filter(None, check.compare(a_record(**changed), a_record()))]) == 1 + len(lines)


@pytest.mark.parametrize(
    "column, there, here, same",
    [
        ("x", (0.37, 0.39, 0.41), (0.41, 0.43, 0.45), False),  # far apart, compared with errors
        ("x", (20.5, 40.5), (20.5, 44.5), False),  # of two, the error is not known
        ("x", (3e-15,), (9e-15,), True),  # rounding
        ("parameters", (50,), (51,), False),
        ("classifier", (90.0,), (90.9,), True),  # a tenth of what is missing to 100
        ("classifier", (90.0,), (91.1,), False),
        ("agreement", (0.99,), (0.98,), False),
    ],
)
def test_how_near_numbers_are_to_be(column, there, here, same):
    assert check.agree(dict(enumerate(there)), dict(enumerate(here)), column) == same


@pytest.mark.parametrize("history", [True, False])
def test_the_exit_status_says_whether_all_agrees(history, tmp_path, monkeypatch, capsys):
    """A saved run of other data is left alone."""
    for module in (check, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "figures/fashion").mkdir(parents=True)
    for name in (*check.NOTEBOOKS, "language", "fashion/2_ablation"):
        (tmp_path / f"figures/{name}.json").write_text(json.dumps(a_record()))
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b@c commit -q -m record"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    if not history:
        shutil.rmtree(tmp_path / ".git")
    (tmp_path / "figures/fashion/2_ablation.json").write_text(json.dumps(a_record(dead=9)))
    runs = {2: a_record(), 0: a_record(measured=(0.88, 0.92)), 1: a_record(dead=9)}
    for status, run in [*runs.items(), (2, a_record(QUICK=True)), (2, None)]:
        path = tmp_path / "figures/2_ablation.json"
        path.write_text(json.dumps(run)) if run else path.unlink()
        assert check.check() == (status if history else 2)
        assert ("Nothing was compared" in capsys.readouterr().out) == (status == 2 or not history)
    monkeypatch.setenv("PATH", "")  # without git
    assert check.check() == 2
