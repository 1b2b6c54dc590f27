"""The record is figures/*.json as last committed. `python record.py check` or `readme`:

check   compare figures/ with the record: exit status 0 if they agree, 1 if not, 2 if they
        cannot be compared (other parameters, no git clone, a file missing)
readme  renew the results table of README.md from figures/
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LANGUAGE = "3_benchmark_language"  # written by `make language`, so not always there
STEMS = ("1_theorem", "2_ablation", "3_benchmark", LANGUAGE)
NUMBER = (int, float)
VERDICT = {True: "holds", False: "fails"}

# Two numbers agree within the absolute or the relative tolerance, whichever is larger, of the
# first pattern found in the name of their column or quantity. Other processors and numbers of
# threads add in another order, and training amplifies the difference.
TOLERANCES = (
    (r"^(seed|lambda|weight|parameters|components|epochs|learning rate)$", 0, 0),  # by choice
    (r"rounding|dL/dE|\bms\b|seconds", float("inf"), 0),  # rounding and timings: see the verdict
    (r"differ|distance|balance", 0.02, 0),  # distances from a target
    (r"^probe$", 1.5, 0),  # of a single model: up to 1 point seen between two processors
    (r"accuracy|probe", 0.5, 0),  # percentage points
    (r"dead", 2, 0),  # units close to the threshold
    (r"redundancy", 0, 0.25),  # of B: units that are almost copies of each other
    (r"", 1e-6, 0.05),  # trained models; what is below 1e-6 is rounding
)


def tolerance(name):
    return next(t[1:] for t in TOLERANCES if re.search(t[0], name.replace("_", " "), re.I))


def agree(name, x, y):
    """Whether two values, or lists of them item by item, are the same within the tolerance.

    Two criteria: what they measured, and the verdict, unless what it judges is at its bound.
    """
    if isinstance(x, dict) and isinstance(y, dict):
        judged = x["measured"] if isinstance(x["measured"], list) else [x["measured"]]
        at_bound = any(agree(name, v, x["bound"]) for v in judged)
        return agree(name, x["measured"], y["measured"]) and (x["holds"] == y["holds"] or at_bound)
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(agree(name, *pair) for pair in zip(x, y))
    if not (isinstance(x, NUMBER) and isinstance(y, NUMBER)):
        return x == y
    absolute, relative = tolerance(name)
    return abs(x - y) <= max(absolute, relative * max(abs(x), abs(y)))


def values(run):
    """{label: (name, value)} of all that a run claims and measures."""
    items, found = [], {}
    for claim in run["claims"]:
        items += [(f"{claim['key']}: {criterion(c)}", c["quantity"], c) for c in claim["criteria"]]
    for row in run["table"]:
        which = [words(v) for k, v in row.items() if isinstance(v, str) or tolerance(k) == (0, 0)]
        items += [(f"table, {', '.join(which)}: {name}", name, v) for name, v in row.items()]
    for label, *item in items:
        while label in found:  # what nothing tells apart goes by its order
            label += "'"
        found[label] = item
    return found


def check():
    status, lines, largest = 0, [("claim", "record", "yours", "agrees")], {}
    for stem in STEMS:
        path = f"figures/{stem}.json"
        git = subprocess.run(["git", "-C", ROOT, "show", f"HEAD:./{path}"], capture_output=True)
        if b"not a git repository" in git.stderr:
            stop("this folder is no git clone, and the record is in the last commit")
        record, yours = git.stdout, (ROOT / path).read_bytes() if (ROOT / path).exists() else None
        if not (record and yours):
            if stem != LANGUAGE:
                stop(f"no {path} " + ("here: run `make figures`" if record else "in the commit"))
        elif record == yours:
            print(f"{path} is the record itself, byte for byte: nothing to compare")
        else:
            record, yours = json.loads(record), json.loads(yours)
            a, b = record["parameters"], yours["parameters"]
            if other := [k for k in a | b if a.get(k) != b.get(k)]:
                print(f"{path} cannot be compared with the record: other {', '.join(other)}")
                status = 2
            else:
                compare(stem, values(record), values(yours), lines, largest)
    for line in lines if len(lines) > 1 else ():
        print(" | ".join(line))
    for column, gap in sorted(largest.items(), key=lambda item: -item[1]):
        print(f"largest relative difference in {column}: {100 * gap:.2g} %")
    sys.exit(status or int(any(line[-1] == "NO" for line in lines)))


def compare(stem, a, b, lines, largest):
    """Append a line for every claim and criterion, and for what disagrees in the table."""
    for label in a | b:
        (name, x), (_, y) = a.get(label, ("", "missing")), b.get(label, ("", "missing"))
        fine, table = agree(name, x, y), label.startswith("table, ")
        if not (fine and table):
            lines.append((f"{stem}, {label}", words(x), words(y), "yes" if fine else "NO"))
        if table and isinstance(x, NUMBER) and isinstance(y, NUMBER) and any(tolerance(name)):
            gap = abs(x - y) / max(abs(x), abs(y), 1e-6)
            largest[f"{stem}, {name}"] = max(gap, largest.get(f"{stem}, {name}", 0))


def readme():
    before, mark, text = (ROOT / "README.md").read_text().partition("<!-- results -->\n")
    end, after = text.partition("<!-- /results -->")[1:]
    if not (mark and end):
        stop("README.md has no place from <!-- results --> to <!-- /results -->")
    (ROOT / "README.md").write_text(f"{before}{mark}{results()}\n{end}{after}")


def results():
    """The claims in Markdown, the paper's and then the companion's, joined by key."""
    head = " | criterion | published | here | verdict |\n|---|---|---|---|---|\n"
    parts = {"paper": f"| the paper claims{head}", "companion": f"| this companion adds{head}"}
    runs = {s: ROOT / "figures" / f"{s}.json" for s in STEMS}
    runs = {s: json.loads(p.read_text())["claims"] if p.exists() else [] for s, p in runs.items()}
    language = {c["key"]: c for c in runs.pop(LANGUAGE)}
    for stem, c in ((stem, c) for stem, claims in runs.items() for c in claims):
        bounds = "; ".join(map(criterion, c["criteria"]))
        here = "; ".join(words(k["measured"]) for k in c["criteria"])
        verdict = outcome(c)
        if stem in LANGUAGE and c["key"] in language:  # it is that notebook on other data
            verdict += f"; language model: {outcome(language[c['key']])}"
        cells = re.sub(r"^\d+\. ", "", c["claim"]), bounds, c["published"] or "–", here, verdict
        parts[c["by"]] += "| " + " | ".join(t.replace("|", r"\|") for t in cells) + " |\n"
    return "\n".join(parts.values()).strip()


def outcome(claim):
    failed, n = sum(not c["holds"] for c in claim["criteria"]), len(claim["criteria"])
    return "holds" if claim["holds"] else "**fails**" + (f" in {failed} of {n}" if n > 1 else "")


def criterion(c):
    return f"{c['quantity']} {c['comparison']} {c['bound']}"


def words(value):
    """A value in a few characters; of a list of numbers the smallest and the largest."""
    if isinstance(value, dict):
        return f"{words(value['measured'])}, {VERDICT[value['holds']]}"
    if isinstance(value, list):
        known = sorted(v for v in value if v is not None)
        return " to ".join(dict.fromkeys(map(words, known[:1] + known[-1:]))) or "–"
    if isinstance(value, NUMBER):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return value or "–"


def stop(message):
    print(f"record.py: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    {"check": check, "readme": readme}.get(sys.argv[-1], lambda: stop(__doc__))()
