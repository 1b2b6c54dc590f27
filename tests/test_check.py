"""lab/check.py, on made-up records, and in a repository of their own, which also has a commit."""

import json
import shutil
import subprocess

import pytest

from lab import check, record

NAN, NARROW, WIDE = float("nan"), (28.9, 29.1, 29.3), (0.37, 0.39, 0.41)


def a_record(C=NARROW, B=(1000.0, 2000.0, 3000.0), dead=(3, 3, 3), size=50, verdict=(0.9, 0.92)):
    """Of a model C with hardly any spread, and of a B with much."""
    models = {"B": B, "C": C}
    rows = [(model, seed, value) for model in models for seed, value in enumerate(models[model])]
    return {
        "parameters": {"SEEDS": [0, 1, 2], "QUICK": False},
        "environment": {"commit": "1234567"},
        "criteria": [record.criterion("It is good.", verdict, ">", 0.89)],
        "tables": {
            "runs": [{"redundancy": v, "seed": s, "dead": dead[s], "model": m} for m, s, v in rows],
            "all": [{"seed": seed, "parameters": size} for seed in (0, 1)],
        },
    }


def times(factor, values=NARROW):
    return [factor * value for value in values]


C, B = "runs, C, redundancy: ", "runs, B, redundancy: "
DEAD_C, DEAD_B = "runs, C, dead: ", "runs, B, dead: "
FLIP = "criterion It is good. holds in the record and fails in your run"
HAIR = "note: criterion It is good. holds in the record by a hair and fails in your run"


@pytest.mark.parametrize(
    "changed, differing",
    [
        ({}, []),
        ({"C": times(1.01)}, []),
        ({"C": times(1.1)}, [C + "29.1 in the record, 32.01 in your run"]),
        ({"B": (1400.0, 1800.0, 3700.0)}, []),  # the mean of differences has an error of 240
        ({"B": (1450.0, 2500.0, 3550.0)}, [B + "2000 in the record, 2500 in your run"]),  # of 29
        ({"C": (28.9, 29.1)}, [C + "29.1 in the record, 29 in your run, of other seeds", DEAD_C]),
        ({"C": (28.9, 29.1, None)}, [C + "29.1 in the record, 29 in your run, of other seeds"]),
        ({"C": ()}, [C + "29.1 in the record, nothing", DEAD_C + "3 in the record, nothing"]),
        ({"dead": (4, 4, 4)}, []),
        ({"dead": (5, 5, 5)}, [DEAD_B + "3 in the record, 5", DEAD_C + "3 in the record, 5"]),
        ({"size": 51}, ["all, parameters: 50 in the record, 51 in your run"]),
        ({"verdict": (0.88, 0.92)}, [HAIR]),
        ({"verdict": (0.5, 0.52)}, [FLIP]),
        ({"verdict": (NAN, 0.92)}, [FLIP]),
        ({"verdict": (9, 9)}, []),
    ],
)
def test_what_differs_is_named(changed, differing):
    """In a run, or in the record."""
    (head, *lines), n = check.compare(a_record(), a_record(**changed))
    assert head == "compared with a run of commit 1234567" and n == 6
    assert len(lines) == len(differing)
    for line, start in zip(lines, differing):
        assert line.startswith(start)
    assert len(check.compare(a_record(**changed), a_record())[0]) == 1 + len(differing)


def test_a_number_that_moves_is_seen_though_seeds_differ_as_much():
    """With two seeds the error of differences does not count."""
    for values, factor, lines in ((WIDE, 1.1, 1), (WIDE, 1.02, 0), (WIDE[:2], 1.05, 1)):
        run = a_record(C=times(factor, values))
        assert len(check.compare(a_record(C=values), run)[0]) == 1 + lines
    assert not check.agree({0: 20.5, 1: 40.5}, {0: 20.5, 1: 44.5})
    assert check.agree({0: -1000.5}, {0: -1010.5}) and not check.agree({0: -1000.5}, {0: -1040.5})


def test_a_point_of_accuracy_is_seen():
    """Where 90% are right, of a run with 91.1%, but not of one with 90.9%."""

    def with_accuracy(number):
        return a_record() | {"tables": {"of": [{"seed": 0, "classifier": number}]}}

    for accuracy, lines in ((90.9, 0), (91.1, 1), (89.1, 0), (88.9, 1)):
        found, _ = check.compare(with_accuracy(90.0), with_accuracy(accuracy))
        assert len(found) == 1 + lines


def test_what_is_missing_is_named_and_of_other_parameters_nothing_is_compared():
    run = a_record()
    for row in run["tables"]["runs"]:
        del row["redundancy"]
    run["tables"]["all"], run["criteria"] = [{"seed": 0, "other": 1.0}], []
    (_, *lines), n = check.compare(a_record(), run)
    assert n == 7  # two redundancies, two numbers of dead units, two numbers of "all", a criterion
    starts = ["runs, B, red", "runs, C, red", "all, parameters", "all, other", "criterion It is"]
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    run["parameters"] |= {"QUICK": True, "NEW": 1}
    said = ["of other parameters than the record: QUICK, NEW"]
    assert check.compare(a_record(), run) == (said, 0)


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The folder of a committed record of each run."""
    for module in (check, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "helpers.py").touch()
    for name in check.RECORDS:
        (tmp_path / "figures" / f"{name}.json").write_text(json.dumps(a_record()))
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b@c commit -q -m record"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    return tmp_path / "figures"


@pytest.mark.parametrize(
    "run, status, said",
    [
        (json.dumps(a_record()), 2, "the committed record itself"),
        (json.dumps(a_record(C=times(1.01))), 0, "6 numbers and verdicts compared, 0 of them"),
        (json.dumps(a_record(verdict=(0.88, 0.92))), 0, HAIR),
        (json.dumps(a_record(C=times(1.1))), 1, "6 numbers and verdicts compared, 1 of them"),
        ('{"parameters": {', 2, "damaged\n  run `make figures`"),
        (None, 2, "missing here"),
    ],
)
def test_the_exit_status_says_whether_all_agrees(run, status, said, figures, capsys):
    path = figures / "2_ablation.json"
    path.write_text(run) if run else path.unlink()
    assert check.check() == status
    out = capsys.readouterr().out
    assert said in out and out.count("the committed record itself") >= 3
    assert ("Nothing was compared" in out) == (status == 2)


def test_without_git_or_its_history_it_says_so(figures, capsys, monkeypatch):
    shutil.rmtree(figures.parent / ".git")
    assert check.check() == 2
    monkeypatch.setenv("PATH", "")
    assert check.check() == 2
    assert capsys.readouterr().out.count("This needs git and the repository's history") == 2


def test_a_commit_is_dirty_if_anything_but_figures_has_changed(figures):
    clean = record.commit()
    (figures / "2_ablation.json").write_text("new")
    assert record.commit() == clean != "unknown" and "-dirty" not in clean
    (figures.parent / "helpers.py").write_text("new")
    assert record.commit() == f"{clean}-dirty"
