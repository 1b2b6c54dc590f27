"""`make publish REPO=owner/name`: write a GitHub address into the notebooks, README and citation.

Badges stand between <!-- badges --> and <!-- /badges -->. It can be run again with another name.
"""

import json
import re
import sys

from lab import ROOT

NOTEBOOKS = ("1_theorem", "2_ablation", "3_benchmark")
BADGES = r"(?<=<!-- badges -->).*?(?=<!-- /badges -->)"


def publish(repo, root=ROOT):
    """Write the address of a repository, owner/name, into the files of a folder.

    Raises ValueError for a name that is none, and for a file without a place for the address.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"REPO is owner/name, as on GitHub; got {repo!r}")
    url = f"https://github.com/{repo}"
    pages = {root / f"notebooks/{name}.ipynb": badges(repo, name) for name in NOTEBOOKS}
    for path, both in pages.items():
        code = json.dumps(f'address = "{url}"')[1:-1]
        replace(path, r'(?<!\w)address = \\"[^"\\]*\\"', code)
        replace(path, BADGES, both)
    replace(root / "README.md", BADGES, " ".join(pages.values()))
    replace(root / "CITATION.cff", r'(?m)^repository-code: ".*"', f'repository-code: "{url}"')


def badges(repo, name):
    """Markdown of the Binder's and Colab's badges of a notebook."""
    file = f"notebooks/{name}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{repo}/HEAD?labpath={file}"
    colab = f"https://colab.research.google.com/github/{repo}/blob/main/{file}"
    return (
        f"[![{name[0]} in Binder](https://mybinder.org/badge_logo.svg)]({binder}) "
        f"[![{name[0]} in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
    )


def replace(path, pattern, text):
    """Replace what matches in a file."""
    new, n = re.subn(pattern, lambda _: text, path.read_text("utf-8"), flags=re.DOTALL)
    if n != 1:
        raise ValueError(f"{path} has not one place for the address: {pattern}")
    path.write_text(new, "utf-8")


if __name__ == "__main__":
    try:
        publish(" ".join(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"{error}. Usage: make publish REPO=owner/name")
