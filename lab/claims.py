"""What is claimed, what a run says of it, and whether two runs agree: by the standard library.

notebooks/claims.csv has every criterion, `Claims` judges them, and the record is figures/*.json as
last committed. `python3 -m lab.claims` takes one of

check   compare figures/ with the record, and README.md with figures/: exit status 0 if they agree,
        1 if not, 2 if they cannot be compared
readme  fill the table of README.md from figures/

Another machine is another draw of seeds. Two means over seeds agree within 5 standard errors of
their difference or within the floor of that number, whichever is larger; other numbers of seeds do
not. A verdict may differ where the record is within 3 standard errors of its bound (standard
deviations, if each seed is judged). Where a method has another rate than in the record, its numbers
are left out, by name; where that is over a third of them, the runs do not agree.
"""

import csv
import json
import operator
import subprocess
import sys
from math import hypot, inf, nan
from statistics import fmean, stdev

from lab import ROOT

CLAIMS = ROOT / "notebooks" / "claims.csv"
NOTEBOOKS = ("1_theorem", "2_ablation", "3_benchmark")
STEMS = (*NOTEBOOKS, "language")  # the last is of `make language`, and not always there
FREE = ("DEVICE", "OUTPUT")  # parameters that may differ
FAR, CLOSE = 5, 3  # standard errors
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
# Student's 97.5 % quantile for 1 to 8 degrees of freedom
T975 = (12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600)

# --- Criteria -----------------------------------------------------------------------------


def interval(values):
    """(mean, low, high): Student's 95 % interval of a few values; NaN for fewer than two."""
    n, z = len(values), 1.959964  # of the normal distribution, to which Student's quantile tends
    if n < 2:
        return (fmean(values) if n else nan, nan, nan)
    v, mean = n - 1, fmean(values)
    beyond = (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    half = (T975[v - 1] if n < 10 else z + beyond) * stdev(values) / n**0.5
    return mean, mean - half, mean + half


# Of the values of all seeds: what is held against the bound
STATISTICS = {"each": lambda v: v, "mean": lambda v: [fmean(v)]}
STATISTICS |= {"|mean|": lambda v: [abs(fmean(v))], "lower end": lambda v: [interval(v)[1]]}


class Claims(dict):
    """What a notebook measured for the criteria of claims.csv, by their ids.

    claims["id"] = a number, a list with one number a seed, or {place: one of these}, where a place
    is an L0, say. KeyError for an id that is not there, or is retired, or another notebook's.
    """

    def __init__(self, notebook, path=CLAIMS):
        with open(path, newline="") as file:
            rows = [r for r in csv.DictReader(file) if r["notebook"] == notebook and not r["end"]]
        self.rows = {r["id"]: r | {k: float(r[k]) for k in ("bound", "floor")} for r in rows}

    def __setitem__(self, id, values):
        if id not in self.rows:
            raise KeyError(f"claims.csv has no claim {id!r} of this notebook: {list(self.rows)}")
        places = values if isinstance(values, dict) else {"": values}
        super().__setitem__(id, {str(place): _floats(v) for place, v in places.items()})

    def judge(self):
        """A dict for each criterion, in the file's order: its row, "measured" {place: values},
        "judged" {place: what is held against the bound}, and "holds": whether it does at all
        places, with NaN never; None if it was not measured."""
        judged = []
        for id, row in self.rows.items():
            measured, meets = self.get(id, {}), COMPARISONS[row["comparison"]]
            held = {p: STATISTICS[row["statistic"]](v) if v else [] for p, v in measured.items()}
            holds = [len(v) > 0 and all(meets(w, row["bound"]) for w in v) for v in held.values()]
            verdict = all(holds) if holds else None
            judged.append(row | {"measured": measured, "judged": held, "holds": verdict})
        return judged


def _floats(values):
    try:
        return [float(v) for v in values]
    except TypeError:  # a single number
        return [float(values)]


# --- The record ---------------------------------------------------------------------------


def stop(message):
    print(f"lab.claims: {message}", file=sys.stderr)
    sys.exit(2)


def check():
    record, runs, results = {}, {}, []
    for stem in STEMS:
        path = f"figures/{stem}.json"
        there, here = committed(path), (ROOT / path).exists()
        if there and here:
            record[stem], runs[stem] = json.loads(there), json.loads((ROOT / path).read_text())
            if record[stem] == runs[stem]:
                print(f"{path} is the record itself, not a run of yours")
            results += compare(stem, record[stem], runs[stem])
        elif stem in NOTEBOOKS:
            stop(f"no {path} " + ("here: run `make figures`" if there else "in a clone's commit"))
    text = (ROOT / "README.md").read_text()
    if text not in [fill(text, "result", table(side)) for side in (runs, record)]:
        results += [("", "NO", "README.md: its table is not what figures/ say: `make readme`", 0)]
    for _, outcome, line, _ in results:
        if outcome not in ("agrees", "left out"):
            print(f"{outcome:6}{line}")
    for kind in ("verdicts", "numbers"):
        outcomes = [outcome for k, outcome, *_ in results if k == kind]
        print(f"{outcomes.count('agrees')} of {len(outcomes)} {kind} agree")
    if left_out := [line for _, outcome, line, _ in results if outcome == "left out"]:
        print(f"{len(left_out)} numbers are left out:", *left_out, sep="\n  ")
    *_, line, errors = max(results, key=lambda r: r[3])
    if errors:  # that is, above a floor
        print(f"the largest difference, in standard errors: {errors:.1f} ({line})")
    if too_few := 3 * len(left_out) > sum(kind == "numbers" for kind, *_ in results):
        print("NO    over a third of the numbers is left out")
    sys.exit(too_few or any(outcome == "NO" for _, outcome, *_ in results))


def compare(stem, record, yours):
    """[(kind, "agrees", "close", "left out" or "NO", line, standard errors)] of all verdicts and
    numbers."""
    settings = pairs(record["parameters"], yours["parameters"])
    if other := [name for name, a, b in settings if a != b and name not in FREE]:
        stop(f"figures/{stem}.json cannot be compared with the record: other {', '.join(other)}")
    results, retuned = [], {}
    for id, *claims in pairs(*({c["id"]: c for c in run["claims"]} for run in (record, yours))):
        results.append(("verdicts", *compare_verdicts(f"{stem}, {id}", *claims), 0))
    for method, a, b in pairs(record.get("rates", {}), yours.get("rates", {})):
        if a != b:
            print(f"tuned {stem}, {method}: to {b}, in the record to {a}")
            retuned[method] = b
    for key, a, b in pairs(numbers(record), numbers(yours)):
        name = ", ".join(filter(None, (stem, *key)))
        if by := [method for method in (a or b)[2] if method in retuned]:
            results.append(("numbers", "left out", f"{name} (by the rate of {', '.join(by)})", 0))
        else:
            results.append(("numbers", *compare_numbers(name, a, b)))
    return results


def git(*words):
    """What git says in this repository; nothing where there is no git."""
    try:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True).stdout.decode()
    except OSError:
        return ""


def committed(path):
    return git("show", f"HEAD:./{path}")


def pairs(a, b):
    return [(k, a.get(k), b.get(k)) for k in {**a, **b}]


def numbers(run):
    """{(method or id, quantity, place): (a value a seed, floor, [methods])} where a floor."""
    found = {
        (n["method"], n["quantity"], str(n["place"])): (n["seeds"], n["floor"], [n["method"]])
        for n in run.get("numbers", [])
    }
    for c in run["claims"]:
        for place, values in c["measured"].items():
            methods = (c.get("methods") or "").split(";")  # an older record names none
            found[c["id"], c["quantity"], place] = values, c["floor"], methods
    return {key: n for key, n in found.items() if n[1] is not None}


def compare_numbers(name, record, yours):
    a, b = ([v for v in run[0] if v is not None] if run else [] for run in (record, yours))
    if len(a) != len(b) or not (record and yours):
        return "NO", f"{name}: of {len(a)} seeds in the record, of {len(b)} in yours", inf
    if not a:
        return "agrees", f"{name}: not measured", 0
    gap = abs(fmean(a) - fmean(b))
    error = hypot(*(stdev(v) / len(v) ** 0.5 for v in (a, b) if len(v) > 1))
    errors = gap / error if error else inf
    line = f"{name}: {fmean(a):.4g}, yours {fmean(b):.4g}, {errors:.1f} standard errors"
    if gap <= max(record[1], 1e-9 * abs(fmean(a))):
        return "agrees", line, 0
    return ("agrees" if errors <= FAR else "NO"), line, errors


def compare_verdicts(name, record, yours):
    rule = ("comparison", "bound", "statistic")
    if not (record and yours) or any(record[k] != yours[k] for k in rule):
        return "NO", f"{name}: not the same criterion in both"
    if record["holds"] == yours["holds"]:
        return "agrees", name
    both = [place for place in record["judged"] if place in yours["judged"]]
    crossed = [margin(record, p) for p in both if meets(record, p) != meets(yours, p)]
    far, words = max(crossed, default=inf), {True: "holds", False: "fails", None: "not measured"}
    line = f"{name}: {words[record['holds']]}, yours {words[yours['holds']]}"
    return ("close" if far <= CLOSE else "NO"), f"{line}; {far:.1f} standard errors from its bound"


def meets(claim, place):
    compare, bound = COMPARISONS[claim["comparison"]], claim["bound"]
    return all(v is not None and compare(v, bound) for v in claim["judged"][place])


def margin(claim, place):
    """How far from its bound, in standard errors (or deviations, where each value is judged)."""
    values, judged = claim["measured"][place], claim["judged"][place]
    if None in values + judged:
        return inf
    distance, unit = min(abs(v - claim["bound"]) for v in judged), 0
    if len(values) > 1:
        unit = stdev(values) / (1 if claim["statistic"] == "each" else len(values) ** 0.5)
    return distance / unit if unit else distance and inf


# --- README.md ----------------------------------------------------------------------------


def readme():
    page, path = ROOT / "README.md", ROOT / "figures" / "3_benchmark.json"
    if not path.exists():
        stop(f"no figures/{path.name}: run `make figures`")
    runs = {path.stem: json.loads(path.read_text())}
    page.write_text(fill(page.read_text(), "result", table(runs)))


def table(runs):
    """The benchmark's rows for the front page, in Markdown."""
    rows = runs["3_benchmark"]["result"]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(c.replace("|", r"\|") for c in n) + " |" for n in lines)


def fill(text, name, content):
    """Text of README.md with something new between <!-- name --> and <!-- /name -->."""
    before, mark, rest = text.partition(f"<!-- {name} -->")
    end, after = rest.partition(f"<!-- /{name} -->")[1:]
    if not (mark and end):
        stop(f"README.md has no place from <!-- {name} --> to <!-- /{name} -->")
    return f"{before}{mark}\n\n{content}\n\n{end}{after}"


if __name__ == "__main__":
    commands = {"check": check, "readme": readme}
    commands.get("".join(sys.argv[1:]), lambda: stop(__doc__))()
