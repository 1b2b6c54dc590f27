"""`make publish REPO=owner/name [BRANCH=main]`: write a GitHub address into notebooks and README.

Each notebook gets badges, and a first cell of code that fetches the repository in Colab. It can be
run again with another name. Any Python 3 runs it, without packages.
"""

import json
import os
import re
import sys

from lab import NOTEBOOKS, ROOT

BADGES = "(?<=<!-- badges -->).*?(?=<!-- /badges -->)"
BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"
CELL = """\
import os
import sys

# `make publish` wrote this cell
address = "{} --branch {}"
if "google.colab" in sys.modules and not os.path.exists("../lab"):
    os.system(f"test -d companion || git clone --quiet --depth 1 {{address}} companion")
    os.chdir("companion/notebooks")"""


def with_text(path, pattern, text):
    """Return the text of a file with the one place that matches a pattern replaced."""
    new, n = re.subn(pattern, lambda _: text, path.read_text("utf-8"))
    assert n == 1, f"{path} has {n} places for {text}"
    return new


def with_cell(notebook, source):
    """Return the text of a notebook whose first cell of code, "colab", has this source."""
    notebook = json.loads(notebook)
    cells, lines = notebook["cells"], source.splitlines(keepends=True)
    first = next(i for i, cell in enumerate(cells) if cell["cell_type"] == "code")
    if cells[first].get("id") != "colab":
        new = {"cell_type": "code", "execution_count": None, "id": "colab", "metadata": {}}
        cells.insert(first, new | {"outputs": [], "source": []})
    cells[first]["source"] = lines
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"  # as Jupyter writes it


if __name__ == "__main__":
    _, repo, branch = sys.argv  # the branch that Colab opens; Binder opens the default one
    if not re.fullmatch(r"[\w.-]+/[\w.-]+ [\w./-]+", f"{repo} {branch}"):
        sys.exit("Usage: make publish REPO=owner/name [BRANCH=main], both as on GitHub")
    url, badges, new = f"https://github.com/{repo}", [], {}
    for name in NOTEBOOKS:
        n, file = name[0], f"notebooks/{name}.ipynb"
        binder = f"({BINDER}/badge_logo.svg)]({BINDER}/v2/gh/{repo}/HEAD?labpath={file})"
        colab = f"({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{repo}/blob/{branch}/{file})"
        badges.append(f"[![{n} in Binder]{binder} [![{n} in Colab]{colab}")
        for path in (ROOT / file, *ROOT.glob(f"build/{name}.[is]*")):  # .ipynb and .source
            new[path] = with_cell(with_text(path, BADGES, badges[-1]), CELL.format(url, branch))
    path = ROOT / "README.md"
    new[path] = with_text(path, BADGES, " ".join(badges))
    path = ROOT / "CITATION.cff"
    new[path] = with_text(path, "(?m)(?<=^repository-code: ).*", f'"{url}"')
    for path, text in new.items():
        time = path.stat().st_mtime_ns  # it is kept: `make` need not run the notebook again
        path.write_text(text, "utf-8")
        os.utime(path, ns=(time, time))
