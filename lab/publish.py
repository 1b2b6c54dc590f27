"""`make publish REPO=owner/name [BRANCH=main]`: write a GitHub address into notebooks and README.

Badges stand between <!-- badges --> and <!-- /badges -->. It can be run again with another name.
Any Python 3 runs it, without packages.
"""

import json
import os
import re
import sys
from pathlib import Path

from lab import NOTEBOOKS, ROOT

BADGES = r"(?<=<!-- badges -->).*?(?=<!-- /badges -->)"


def publish(repo, branch="main", root=ROOT):
    """Write the address of a repository, owner/name, into the files of a folder.

    branch: that Colab opens and clones; Binder opens the default one. Raises ValueError for a name
    that is none, and for a file without a place for the address.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"REPO is owner/name, as on GitHub; got {repo!r}")
    url = f"https://github.com/{repo}"
    code = json.dumps(f'address = "{url} --branch {branch}"')[1:-1]
    links = {name: badges(repo, branch, name) for name in NOTEBOOKS}
    for name, both in links.items():
        runs = [root / "build" / f"{name}.{kind}" for kind in ("source", "ipynb")]
        for path in (root / f"notebooks/{name}.ipynb", *filter(Path.exists, runs)):
            replace(path, r'(?<!\w)address = \\"[^"\\]*\\"', code)
            replace(path, BADGES, both)
    replace(root / "README.md", BADGES, " ".join(links.values()))
    replace(root / "CITATION.cff", r'(?m)^repository-code: "[^"]*"', f'repository-code: "{url}"')


def badges(repo, branch, name):
    """Markdown of the Binder's and Colab's badges of a notebook."""
    file = f"notebooks/{name}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{repo}/HEAD?labpath={file}"
    colab = f"https://colab.research.google.com/github/{repo}/blob/{branch}/{file}"
    return (
        f"[![{name[0]} in Binder](https://mybinder.org/badge_logo.svg)]({binder}) "
        f"[![{name[0]} in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
    )


def replace(path, pattern, text):
    """Replace what matches in a file, which keeps its time: `make` need not run it again."""
    new, n = re.subn(pattern, lambda _: text, path.read_text("utf-8"), flags=re.DOTALL)
    if n != 1:
        raise ValueError(f"{path} has not one place for the address: {pattern}")
    time = path.stat().st_mtime_ns
    path.write_text(new, "utf-8")
    os.utime(path, ns=(time, time))


if __name__ == "__main__":
    try:
        publish(*sys.argv[1:] or [""])
    except ValueError as error:
        sys.exit(f"{error}. Usage: make publish REPO=owner/name [BRANCH=main]")
