"""`make publish REPO=owner/name [BRANCH=main]`: write a GitHub address into notebooks and README.

It can be run again with another name. Any Python 3 runs it, without packages.
"""

import os
import re
import sys

from lab import NOTEBOOKS, ROOT

BADGES = "(?<=<!-- badges -->).*?(?=<!-- /badges -->)"
BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"


def replace(path, pattern, text):
    """Replace what matches in a file, which keeps its time: `make` need not run it again."""
    new, n = re.subn(pattern, lambda _: text, path.read_text("utf-8"))
    assert n == 1, f"{path} has {n} places for {text}"
    time = path.stat().st_mtime_ns
    path.write_text(new, "utf-8")
    os.utime(path, ns=(time, time))


if __name__ == "__main__":
    _, repo, branch = sys.argv  # the branch that Colab opens; Binder opens the default one
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        sys.exit("Usage: make publish REPO=owner/name [BRANCH=main], both as on GitHub")
    url, badges = f"https://github.com/{repo}", []
    for name in NOTEBOOKS:
        n, file = name[0], f"notebooks/{name}.ipynb"
        binder = f"({BINDER}/badge_logo.svg)]({BINDER}/v2/gh/{repo}/HEAD?labpath={file})"
        colab = f"({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{repo}/blob/{branch}/{file})"
        badges.append(f"[![{n} in Binder]{binder} [![{n} in Colab]{colab}")
        for path in (ROOT / file, *ROOT.glob(f"build/{name}.[is]*")):  # .ipynb and .source
            replace(path, r'(?<=\baddress = \\").*?(?=\\")', f"{url} --branch {branch}")
            replace(path, BADGES, badges[-1])
    replace(ROOT / "README.md", BADGES, " ".join(badges))
    replace(ROOT / "CITATION.cff", "(?m)(?<=^repository-code: ).*", f'"{url}"')
