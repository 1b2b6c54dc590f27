"""The record is figures/*.json as last committed. Call `python3 lab/record.py` with one of

check               compare figures/ with the record: exit status 0 if they agree, 1 if not, 2 if
                    they cannot be compared (other parameters, no git clone, a file missing)
readme              renew the tables of README.md from figures/
address owner/name  set the public address, and the badges and buttons that need one
"""

import json
import os
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ("1_theorem", "2_ablation", "3_benchmark")
LANGUAGE = "3_benchmark_language"  # written by `make language`, so not always there
FREE = float("inf")
# Two numbers agree within the absolute or the relative tolerance, whichever is larger, of the
# first pattern found in the name of their column or quantity. Other processors and numbers of
# threads add in another order, and training amplifies the difference.
TOLERANCES = (
    (r"^(seed|knob|size)$", 0, 0),  # by choice
    (r"rounding|absolute|relative$|^largest", FREE, 0),  # of rounding only the verdict counts
    (r"^probe$", 1.5, 0),  # points, of a single model
    (r"probe|^mean L0", 0.5, 0),  # of means over models
    (r"dead", 2, 0),  # units close to the threshold
    (r"redundancy", 0, 0.25),  # of units that are almost copies of each other
    (r"norm-matched", 0.002, 0.05),
    (r"", 0.02, 0.05),
)
LINKS = {
    "Binder": "https://mybinder.org/v2/gh/{}/HEAD?urlpath=lab/tree/notebooks/{}.ipynb",
    "Colab": "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb",
}
BADGES = """\
[![tests](https://github.com/{0}/actions/workflows/ci.yml/badge.svg)](https://github.com/{0}/actions)
[![Open in Binder](https://mybinder.org/badge_logo.svg)]({Binder})
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({Colab})"""


def check():
    fine, verdicts = True, []
    for stem in (*NOTEBOOKS, LANGUAGE):
        path = f"figures/{stem}.json"
        git = ["git", "-C", ROOT, "show", f"HEAD:./{path}"]
        record, here = subprocess.run(git, capture_output=True).stdout, (ROOT / path).exists()
        if record and here:
            if record == (ROOT / path).read_bytes():
                print(f"{path} is the record itself, not a run of yours")
            record, yours = json.loads(record), json.loads((ROOT / path).read_text())
            a, b = record["parameters"], yours["parameters"]
            if other := [k for k in {**a, **b} if a.get(k) != b.get(k)]:
                stop(f"{path} cannot be compared with the record: other {', '.join(other)}")
            fine &= compare(stem, values(record), values(yours), verdicts)
        elif stem != LANGUAGE:
            stop(f"no {path} " + ("here: run `make figures`" if record else "in a clone's commit"))
    print("all" if all(verdicts) else f"{sum(verdicts)} of", len(verdicts), "verdicts agree")
    sys.exit(not fine)


def values(run):
    """{(where, what): criterion, or an entry of the table in the same form}."""
    found = {(c["key"], criterion(c)): c for c in run["claims"]}
    for i, row in enumerate(run["table"], 1):
        found.update({(f"row {i}", k): {"quantity": k, "measured": v} for k, v in row.items()})
    return found


def compare(stem, record, yours, verdicts):
    """Print what disagrees, a line a criterion or column, and how far numbers differ; return
    whether all agrees. `verdicts` gets an entry a criterion: whether it is that of the record."""
    wrong, gaps = {}, {}
    for key in {**record, **yours}:
        x, y = (run.get(key, {"measured": "missing"}) for run in (record, yours))
        what = {**x, **y}
        limits = next(t[1:] for t in TOLERANCES if re.search(t[0], what["quantity"], re.I))
        fine, gap = differ(x["measured"], y["measured"], *limits)
        if "holds" in what:
            verdicts.append(x.get("holds") == y.get("holds"))
            # Within its tolerance a number may come to lie on the other side of its bound.
            fine &= verdicts[-1] or limits[0] < FREE
        group = "what claims measure" if "holds" in what else what["quantity"]
        gaps[group] = max(gaps.get(group, 0), gap)
        if not fine:
            line = f"NO  {stem}, {': '.join(key)}: {words(x)}; yours {words(y)}"
            wrong.setdefault(key if "holds" in what else group, line)
    told = [f"{group} {100 * gap:.2g} %" for group, gap in gaps.items() if gap]
    told = f"{stem}, largest relative differences: {', '.join(told) or 'none'}"
    print(*wrong.values(), told, sep="\n")
    return not wrong


def differ(x, y, absolute, relative):
    """Whether two values, or two lists item by item, agree; and their largest difference, relative
    to the larger, or to the absolute tolerance if that is larger still."""
    fine, largest = True, 0
    for a, b in zip_longest(*(v if isinstance(v, list) else [v] for v in (x, y))):
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            gap, size = abs(a - b), max(abs(a), abs(b), absolute, 1e-9)
            fine &= gap <= absolute or gap <= relative * size
            largest = max(largest, gap / size)
        else:
            fine &= a == b
    return fine, largest


def readme():
    text = (ROOT / "README.md").read_text()
    for name, content in tables().items():
        text = fill(text, name, content)
    (ROOT / "README.md").write_text(text)


def tables():
    """{place in README.md: Markdown}: the result of the benchmark, and all claims."""
    paths = [ROOT / "figures" / f"{stem}.json" for stem in (*NOTEBOOKS, LANGUAGE)]
    runs = [json.loads(path.read_text()) for path in paths if path.exists()]
    claims = [
        {k: c[k] for k in ("claim", "by", "data")}
        | {"criterion": criterion(c), "published": c["published"] or "–"}
        | {"here": words({"measured": c["measured"]}), "holds": "yes" if c["holds"] else "**no**"}
        for run in runs
        for c in run["claims"]
    ]
    left_out = ("informative by", "by least squares")
    result = [{k: v for k, v in row.items() if k not in left_out} for row in runs[2]["result"]]
    return {"result": table(result), "claims": table(claims)}


def table(rows):
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[k]) for k in head] for row in rows)]
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


def criterion(c):
    return f"{c['quantity']} {c['comparison']} {c['bound']:g}"


def words(c):
    """What was measured in a few characters, of several the smallest and the largest; verdict."""
    known = c["measured"] if isinstance(c["measured"], list) else [c["measured"]]
    known = sorted(v for v in known if v is not None)
    ends = known[:1] + known[-1:]
    ends = [v if isinstance(v, str) else f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in ends]
    verdict = {True: ", holds", False: ", fails"}.get(c.get("holds"), "")
    return (" to ".join(dict.fromkeys(ends)) or "–") + verdict


def stop(message):
    print(f"record.py: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    commands = {"check": check, "readme": readme, "address": address}
    commands.get("".join(sys.argv[1:2]), lambda *_: stop(__doc__))(*sys.argv[2:])
