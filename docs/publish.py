"""Write the address of the repository on GitHub into README, notebooks, page and citation.

`make publish REPO=owner/name` replaces the address that stands in CITATION.cff, at first
OWNER/NAME, wherever it stands, and with it that of the page. It can be run again.
"""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ("README.md", "CITATION.cff", "docs/index.html", "[nbq]*/*.ipynb")  # build/, too


def page_of(repository):
    """Return the address of its page; before it has one, that of the file."""
    if repository == "OWNER/NAME":
        return "docs/index.html"
    owner, name = repository.split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def main(new):
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+", new):
        sys.exit(f"make publish REPO=owner/name, as on GitHub; REPO is {new!r}")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    old = re.search(r'(?m)^repository-code: "https://github.com/(.*)"', citation)[1]
    for path in (path for pattern in WRITTEN for path in ROOT.glob(pattern)):
        text, written = path.read_text("utf-8"), path.stat().st_mtime
        text = re.sub(rf"\]\((\.\./)?{re.escape(page_of(old))}\)", f"]({page_of(new)})", text)
        text = re.sub(rf"{re.escape(old)}(?![\w.-])", new, text)
        path.write_text(text, "utf-8")
        os.utime(path, (written, written))  # a notebook need not run again for its address
    print(f"Written: https://github.com/{new} and {page_of(new)}")


if __name__ == "__main__":
    main(sys.argv[1])
