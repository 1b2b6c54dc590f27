"""lab/check.py, on made-up records, and in a repository of their own."""

import json
import subprocess

import pytest

from lab import check, record

NAN = float("nan")


def a_record(C=(28.9, 29.1, 29.3), B=(1000.0, 2000.0, 3000.0), dead=(3, 3, 3), verdict=(0.9, 0.92)):
    """Of a configuration C with hardly any spread, and of a B with much."""
    rows = {"B": B, "C": C}
    rows = [(run, seed, value) for run in rows for seed, value in enumerate(rows[run])]
    return {
        "parameters": {"SEEDS": [0, 1, 2], "QUICK": False, "OUTPUT": ""},
        "environment": {"commit": "1234567"},
        "criteria": [record.criterion("It is good.", verdict, ">", 0.89)],
        "tables": {
            "runs": [
                {"run": run, "seed": s, "redundancy": v, "dead": dead[s]} for run, s, v in rows
            ],
            "all": [{"seed": seed, "rate": 0.1} for seed in (0, 1)],
        },
    }


def times(factor):
    return [factor * value for value in (28.9, 29.1, 29.3)]


C, B = "runs, C, redundancy: ", "runs, B, redundancy: "
DEAD_C, DEAD_B = "runs, C, dead: ", "runs, B, dead: "


@pytest.mark.parametrize(
    "changed, differing",
    [
        ({}, []),
        ({"C": times(1.01)}, []),
        ({"C": times(1.1)}, [C + "29.1 in the record, 32.01 in your run"]),
        ({"C": times(0.9)}, [C + "29.1 in the record, 26.19 in your run"]),
        ({"B": (4900.0, 5900.0, 6900.0)}, []),  # 4.8 errors of 816
        ({"B": (6200.0, 7200.0, 8200.0)}, [B + "2000 in the record, 7200 in your run"]),
        ({"C": (28.9, 29.1)}, [C + "29.1 in the record, 29 in your run", DEAD_C]),  # a seed less
        ({"C": (28.9, 29.1, None)}, [C + "29.1 in the record, 29 in your run"]),
        ({"C": ()}, [C + "29.1 in the record, nothing", DEAD_C + "3 in the record, nothing"]),
        ({"dead": (4, 4, 4)}, []),
        ({"dead": (5, 5, 5)}, [DEAD_B + "3 in the record, 5", DEAD_C + "3 in the record, 5"]),
        ({"verdict": (0.88, 0.92)}, []),
        ({"verdict": (0.5, 0.52)}, ["criterion: It is good.: another verdict"]),
        ({"verdict": (9, 9)}, []),
        ({"verdict": (NAN, 0.92)}, ["criterion: It is good.: another verdict"]),
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


def test_two_seeds_have_no_error_that_counts():
    a, b = (a_record(C=(20.5, 40.5)), a_record(C=(21.5, 41.5)))
    assert len(check.compare(a, b)[0]) == 2


def test_columns_tables_and_criteria_that_are_missing_are_named():
    run = a_record()
    for row in run["tables"]["runs"]:
        del row["redundancy"]
    run["tables"]["all"], run["criteria"] = [{"seed": 0, "other": 1.0}], []
    (_, *lines), n = check.compare(a_record(), run)
    assert n == 7  # two redundancies, two numbers of dead units, two numbers of "all", a criterion
    assert [line.partition(":")[0] for line in lines] == [
        "runs, B, redundancy",
        "runs, C, redundancy",
        "all, rate",
        "all, other",
        "criterion",
    ]


def test_of_other_parameters_nothing_is_compared_but_the_folder_may_be_another():
    run = a_record(C=times(2))
    run["parameters"]["OUTPUT"] = "mine"
    assert len(check.compare(a_record(), run)[0]) == 2
    run["parameters"] |= {"QUICK": True, "NEW": 1}
    assert check.compare(a_record(), run) == (
        ["of other parameters than the record: QUICK, NEW"],
        0,
    )


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The folder of a committed record of each run."""
    for module in (check, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
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
        (json.dumps(a_record(C=times(1.1))), 1, "6 numbers and verdicts compared, 1 of them"),
        ('{"parameters": {', 2, "damaged: run `make figures`"),
        (None, 2, "missing here"),
    ],
)
def test_the_exit_status_says_whether_all_that_was_compared_agrees(
    run, status, said, figures, capsys
):
    path = figures / "2_ablation.json"
    path.write_text(run) if run else path.unlink()
    assert check.check() == status
    out = capsys.readouterr().out
    assert said in out and out.count("the committed record itself") >= 3
    assert ("Nothing was compared" in out) == (status == 2)


def test_negative_numbers_may_differ_by_three_percent_too():
    for sign in (1, -1):
        assert check.agree([sign * 1000.5], [sign * 1010.5])
        assert not check.agree([sign * 1000.5], [sign * 1040.5])
