"""The record is figures/*.json as last committed. Call `python3 lab/record.py` with one of

check               compare figures/ with the record: exit status 0 if they agree, 1 if not, 2 if
                    they cannot be compared (other parameters, no git clone, a file missing)
readme              fill the places of README.md that show results, from figures/
address owner/name  set the public address, and the badges and buttons that need one

Another machine is another draw of seeds. Two means over seeds agree within 5 standard errors of
their difference or within the floor of that number, whichever is larger. A verdict may differ where
the record is within 3 standard errors of its bound (standard deviations, if each seed is judged).
What a method measured is left out where tuning chose another rate for it.
"""

import csv
import json
import operator
import os
import re
import subprocess
import sys
from math import hypot, inf
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ("1_theorem", "2_ablation", "3_benchmark")
STEMS = (*NOTEBOOKS, "language")  # the last is of `make language`, and not always there
FREE = ("DEVICE", "OUTPUT")  # parameters that may differ
FAR, CLOSE = 5, 3  # standard errors
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
LINKS = {
    "Binder": "https://mybinder.org/v2/gh/{}/HEAD?urlpath=lab/tree/notebooks/{}.ipynb",
    "Colab": "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb",
}
BADGES = """\
[![tests](https://github.com/{0}/actions/workflows/ci.yml/badge.svg)](https://github.com/{0}/actions)
[![Open in Binder](https://mybinder.org/badge_logo.svg)]({Binder})
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({Colab})"""


def stop(message):
    print(f"record.py: {message}", file=sys.stderr)
    sys.exit(2)


def check():
    record, results = {}, []
    for stem in STEMS:
        path = f"figures/{stem}.json"
        there, here = committed(path), (ROOT / path).exists()
        if there and here:
            record[stem], yours = json.loads(there), json.loads((ROOT / path).read_text())
            if record[stem] == yours:
                print(f"{path} is the record itself, not a run of yours")
            results += compare(stem, record[stem], yours)
        elif stem in NOTEBOOKS:
            stop(f"no {path} " + ("here: run `make figures`" if there else "in a clone's commit"))
    readme = (ROOT / "README.md").read_text()
    for name, content in places(record, committed("notebooks/claims.csv")).items():
        if fill(readme, name, content) != readme:
            results.append(("", "NO", f"README.md, {name}: not what the record says", 0))
    for _, outcome, line, _ in results:
        if outcome != "agrees":
            print(f"{outcome:6}{line}")
    for kind in ("verdicts", "numbers"):
        outcomes = [outcome for k, outcome, *_ in results if k == kind]
        print(f"{outcomes.count('agrees')} of {len(outcomes)} {kind} agree")
    *_, line, errors = max(results, key=lambda r: r[3])
    if errors:  # that is, above a floor
        print(f"the largest difference, in standard errors: {errors:.1f} ({line})")
    sys.exit(any(outcome == "NO" for _, outcome, *_ in results))


def compare(stem, record, yours):
    """[(kind, "agrees", "close" or "NO", line, standard errors)] of all verdicts and numbers."""
    settings = pairs(record["parameters"], yours["parameters"])
    if other := [name for name, a, b in settings if a != b and name not in FREE]:
        stop(f"figures/{stem}.json cannot be compared with the record: other {', '.join(other)}")
    results, retuned = [], []
    for id, *claims in pairs(*({c["id"]: c for c in run["claims"]} for run in (record, yours))):
        results.append(("verdicts", *compare_verdicts(f"{stem}, {id}", *claims), 0))
    for method, a, b in pairs(record.get("rates", {}), yours.get("rates", {})):
        if a != b:
            print(f"tuned {stem}, {method}: to {b}, in the record to {a}; so left out below")
            retuned.append(method)
    for key, a, b in pairs(numbers(record), numbers(yours)):
        if not any(method in key[1] + (a or b)[2] for method in retuned):
            name = ", ".join(filter(None, (stem, *key)))
            results.append(("numbers", *compare_numbers(name, a, b)))
    return results


def committed(path):
    git = ["git", "-C", str(ROOT), "show", f"HEAD:./{path}"]
    return subprocess.run(git, capture_output=True).stdout.decode()


def pairs(a, b):
    return [(k, a.get(k), b.get(k)) for k in {**a, **b}]


def numbers(run):
    """{(method or id, quantity, place): (a value a seed, floor, method or claim)} where a floor."""
    found = {
        (n["method"], n["quantity"], str(n["place"])): (n["seeds"], n["floor"], n["method"])
        for n in run.get("numbers", [])
    }
    for c in run["claims"]:
        for place, values in c["measured"].items():
            found[c["id"], c["quantity"], place] = values, c["floor"], c["claim"]
    return {key: n for key, n in found.items() if n[1] is not None}


def compare_numbers(name, record, yours):
    a, b = ([v for v in run[0] if v is not None] if run else [] for run in (record, yours))
    if not (a and b):
        missing = record is None or yours is None or a or b
        return ("NO" if missing else "agrees"), f"{name}: not in both", inf if missing else 0
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


def readme():
    runs = {}
    for stem in STEMS:
        if (path := ROOT / "figures" / f"{stem}.json").exists():
            runs[stem] = json.loads(path.read_text())
        elif stem in NOTEBOOKS:
            stop(f"no figures/{stem}.json: run `make figures`")
    text = (ROOT / "README.md").read_text()
    for name, content in places(runs, (ROOT / "notebooks" / "claims.csv").read_text()).items():
        text = fill(text, name, content)
    (ROOT / "README.md").write_text(text)


def places(runs, claims):
    """{place in README.md: Markdown}: the benchmark's table, and what came of the criteria."""
    rows = list(csv.DictReader(claims.splitlines()))
    outcome = {c["id"]: c["holds"] for run in runs.values() for c in run["claims"]}
    live = [r for r in rows if not r["end"]]
    of = {v: [r["claim"] for r in live if outcome.get(r["id"]) is v] for v in (True, False, None)}
    text = f"{len(of[True])} of {len(live)} criteria hold."
    for value, words in ((False, "failed"), (None, "not measured")):
        if of[value]:
            text += f" {len(of[value])} {words}: *{'* *'.join(of[value])}*"
    text += f" {len(rows) - len(live)} criteria of earlier editions were retired."
    return {"result": table(runs["3_benchmark"]["result"]), "verdicts": text}


def table(rows):
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(c.replace("|", r"\|") for c in n) + " |" for n in lines)


def fill(text, name, content):
    """Text of README.md with something new between <!-- name --> and <!-- /name -->."""
    before, mark, rest = text.partition(f"<!-- {name} -->")
    end, after = rest.partition(f"<!-- /{name} -->")[1:]
    if not (mark and end):
        stop(f"README.md has no place from <!-- {name} --> to <!-- /{name} -->")
    return f"{before}{mark}\n\n{content}\n\n{end}{after}"


def address(new=""):
    if not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9_.-]+", new):
        stop(f"{new!r} is not like owner/name; say `make address REPO=owner/name` with yours")
    citation = (ROOT / "CITATION.cff").read_text()
    old = re.search(r'(?m)^repository-code: "https://github.com/(.+)"', citation)[1]
    hosts = r"((?:github\.com|mybinder\.org/v2/gh|colab\.research\.google\.com/github)/)"
    copies = [ROOT / f / f"{s}.ipynb" for f in ("notebooks", "build") for s in NOTEBOOKS]
    changed = {}
    for path in [ROOT / "CITATION.cff", ROOT / "README.md", *filter(Path.exists, copies)]:
        stem = path.stem if path in copies else NOTEBOOKS[0]
        links = {name: link.format(new, stem) for name, link in LINKS.items()}
        text = re.sub(rf"{hosts}{re.escape(old)}(?![\w-])", rf"\g<1>{new}", path.read_text())
        if path in copies:  # edited as text: all else in it stays as it is, to the byte
            buttons = " · ".join(f"[{name}]({link})" for name, link in links.items())
            text = re.sub(r'(<!-- buttons -->)[^"\\]*', rf"\1 · run it: {buttons}", text)
        elif path.name == "README.md":
            text = fill(text, "badges", BADGES.format(new, **links))
        changed[path] = text
    for path, text in changed.items():
        times = path.stat()
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # no run becomes out of date


if __name__ == "__main__":
    commands = {"check": check, "readme": readme, "address": address}
    commands.get("".join(sys.argv[1:2]), lambda *_: stop(__doc__))(*sys.argv[2:])
