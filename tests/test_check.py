"""lab/check.py and lab/readme.py, on made-up records in a repository of their own."""

import json
import subprocess

import pytest

from lab import check, criteria, readme, record

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


def git(folder, *commands):
    for command in commands:
        subprocess.run(["git", "-C", folder, *command.split()], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a committed record of each run."""
    for module in (check, record, readme):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(criteria, "CLAIMS", tmp_path / "claims.csv")
    criteria.CLAIMS.write_text(CLAIMS)
    (tmp_path / "figures").mkdir()
    for name in check.RECORDS:
        (tmp_path / "figures" / f"{name}.json").write_text(json.dumps(a_record()))
    git(tmp_path, "init", "add .", "-c user.name=a -c user.email=b@c commit -m record")
    return tmp_path


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
    for number in run["numbers"]:
        if number["method"] == "the revised loss":
            number["seeds"] = [9.0, 9.0, 9.0]


@pytest.mark.parametrize(
    "change, status, said",
    [
        (seeds(0.405, 0.415, 0.425), 0, "2 of 2 verdicts and 6 of 6 numbers agree"),
        (seeds(0.44, 0.45, 0.46), 0, "6 of 6"),  # within 5 standard errors of .0082
        (seeds(0.442, 0.452, 0.462), 1, "NO: the paper's loss, explained, L0 10: 0.41 in the rec"),
        (seeds(0.41, 0.42), 1, "3 seeds in the record, 2 in your run"),
        (seeds(0.41, 0.42, None), 1, "3 seeds in the record, 2 in your run"),
        (seeds(0.4, 0.41, 0.42, place="L0 6"), 1, "L0 6: 0 seeds in the record, 3 in your run"),
        (verdict(mean=[1.8, 1.9, 2.4]), 0, "6 of 6"),
        (verdict(mean=[2.5, 2.6, 2.7]), 1, "NO: mean, b: 1.9 in the record, 2.6 in your run"),
        # Verdicts: .92 is one standard deviation above its bound, 1.9 far below its own
        (verdict(each={"L0 10": [0.89, 0.94, 0.96]}), 0, "close to its bound: each: holds in the"),
        (verdict(mean=[5, 5, 5]), 1, "NO: mean: holds in the record, fails in your run"),
        (lambda run: run["criteria"].pop(), 1, "NO: mean: not the same criterion in both"),
        (lambda run: run["criteria"][0].update(bound=0.8), 1, "NO: each: not the same criterion"),
        (settings(OUTPUT="elsewhere", DEVICE="cuda"), 0, "1234567"),
        (settings(SEEDS=[0]), 2, "other parameters than the record: SEEDS = [0]"),
        (settings(QUICK=True), 2, "other parameters than the record: QUICK = True"),
        (settings(NEW=3), 2, "other parameters than the record: NEW = 3"),
        (retune, 0, "L0 10\n  left out: the revised loss, least_squares, L0 10"),
        (retune, 0, "trained at another learning rate: the revised loss\n"),
        (retune, 0, "left out: each, a, L0 10"),
        (retune, 0, "2 of 2 verdicts and 3 of 3 numbers agree"),
    ],
)
def test_check(change, status, said, repository, capsys):
    run = a_record()
    change(run)
    (repository / "figures/2_ablation.json").write_text(json.dumps(run))
    assert check.check() == status
    out = capsys.readouterr().out
    assert said in out
    *_, last = out.splitlines()
    assert last.startswith(f"{int(status != 2)} of 4 files are runs of yours: ")
    assert status == 2 or "1_theorem is the committed record itself" in last


def test_a_missing_a_damaged_and_an_uncommitted_file_cannot_be_compared(repository, capsys):
    assert check.check() == 0
    said = capsys.readouterr().out
    assert said.count("this shows nothing about a run of yours") == 4
    assert said.endswith("0 of 4 files are runs of yours: nothing was compared\n")
    path = repository / "figures/1_theorem.json"
    content = path.read_text()
    path.unlink()
    assert check.check() == 2 and "it is missing: run `make figures`" in capsys.readouterr().out
    path.write_text(content[:50])
    assert check.check() == 2 and "it is damaged: run `make figures`" in capsys.readouterr().out
    path.write_text(content)
    git(
        repository,
        "rm --cached figures/language.json",
        "-c user.name=a -c user.email=b commit -m a",
    )
    assert check.check() == 2 and "no version of it is committed" in capsys.readouterr().out


def test_one_seed_has_no_standard_error_and_needs_the_tolerance():
    def compared(a, b, tolerance=0.01):
        return check.compare_numbers("n", {"seeds": [a], "tolerance": tolerance}, {"seeds": [b]})[0]

    assert compared(0.41, 0.405) and not compared(0.41, 0.43)
    assert compared(1e5, 1e5 + 1e-7, tolerance=0)  # rounding
    assert check.compare_numbers("n", {"seeds": [None], "tolerance": 1}, {"seeds": []}) == (
        True,
        "",
    )


@pytest.mark.parametrize(
    "statistic, seeds, errors",
    [
        ("mean", [2.7, 2.8, 2.9], 2 * 3**0.5),
        ("lower end", [2.7, 2.8, 2.9], 2 * 3**0.5),
        ("each", [2.7, 2.8, 2.9], 1),
        ("mean", [2.8], float("inf")),
        ("mean", [2.8, 2.8], float("inf")),  # no spread says how close it is
        ("mean", [2.8, None], float("inf")),
    ],
)
def test_distance_of_a_verdict_from_its_bound(statistic, seeds, errors):
    values = seeds if statistic == "each" else [2.8]
    row = {"statistic": statistic, "bound": 3.0, "measured": {"": seeds}, "judged": {"": values}}
    assert check.distance_from_bound(row, "") == pytest.approx(errors)


def test_a_verdict_of_the_record_within_three_errors_of_its_bound_may_differ(repository):
    def agree(mean):
        pair = (judged(mean=values)[1] for values in (mean, [9, 9, 9]))
        return check.compare_verdicts("mean", *pair)[0]

    assert agree([2.75, 2.85, 2.95]) and not agree([2.7, 2.8, 2.9])
    places = {"near": [0.92, 0.94, 0.96], "far": [0.98, 0.98, 0.99]}
    one, both = {"near": [0, 0, 0]}, dict.fromkeys(places, [0, 0, 0])
    for crossed, agrees in ((places | one, True), (both, False)):
        pair = (judged(each=values)[0] for values in (places, crossed))
        assert check.compare_verdicts("each", *pair)[0] == agrees


# --- make readme --------------------------------------------------------------------------------


def a_benchmark():
    of = {"parameters": 50240.0, "least_squares": 0.6, "cosine": 0.9}
    rows = [
        of
        | {"method": m, "seed": s, "explained": 0.4 + i / 10 + s / 100, "cut": 0.5 if i else None}
        for i, m in enumerate((*METHODS, "k-means"))
        for s in (0, 1, 2)
    ]
    return {
        "parameters": {"QUICK": False, "SEEDS": [0, 1, 2]},
        "variance": 0.05,
        "on_front_page": METHODS[::-1],
        "at_l0": rows,
    }


@pytest.fixture
def page(repository):
    page = repository / "README.md"
    page.write_text("Before.\n<!-- result --> an old one <!-- /result -->\nAfter ± it.\n", "utf-8")
    (repository / "figures/3_benchmark.json").write_text(json.dumps(a_benchmark()))
    return page


def test_the_table_of_the_front_page(page):
    assert readme.main() == readme.main() == 0
    assert page.read_text("utf-8").splitlines() == [
        "Before.",
        "<!-- result -->",
        "",
        "| MNIST, 10 of 64 units active | parameters | MSE | variance explained "
        "| with a least-squares decoder |",
        "| --- | --- | --- | --- | --- |",
        "| the revised loss | 50,240 | 0.0245 | 0.510 ± 0.010 | 0.600 |",
        "| the paper's loss | 50,240 | 0.0295 | 0.410 ± 0.010 | 0.600 |",
        "",
        "<!-- /result -->",
        "After ± it.",
    ]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda file, run: file.unlink(), "3_benchmark.json is missing"),
        (lambda file, run: run["parameters"].update(QUICK=True), "is a quick run"),
        (lambda file, run: run["parameters"].update(SEEDS=[0]), "of a single seed"),
    ],
)
def test_the_front_page_is_left_as_it_is(change, said, page, repository, capsys):
    before, file, run = page.read_bytes(), repository / "figures/3_benchmark.json", a_benchmark()
    change(file, run)
    if file.exists():
        file.write_text(json.dumps(run))
    assert readme.main() == 2 and page.read_bytes() == before
    told = capsys.readouterr().err
    assert said in told and "README.md is left as it is" in told and len(told.splitlines()) == 1
