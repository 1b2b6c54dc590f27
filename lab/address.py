"""`python3 -m lab.address owner/name`: set the public address, its badges and buttons."""

import os
import re
import sys

from lab import ROOT
from lab.claims import NOTEBOOKS, fill, stop

LINKS = {
    "Binder": "https://mybinder.org/v2/gh/{}/HEAD?urlpath=lab/tree/notebooks/{}.ipynb",
    "Colab": "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb",
}
BADGES = """\
[![tests](https://github.com/{0}/actions/workflows/ci.yml/badge.svg)](https://github.com/{0}/actions)
[![Open in Binder](https://mybinder.org/badge_logo.svg)]({Binder})
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({Colab})"""


def address(new):
    if not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9_.-]+", new):
        stop(f"{new!r} is not like owner/name; say `make address REPO=owner/name` with yours")
    citation = (ROOT / "CITATION.cff").read_text()
    old = re.search(r'(?m)^repository-code: "https://github.com/(.+)"', citation)[1]
    hosts = r"((?:github\.com|mybinder\.org/v2/gh|colab\.research\.google\.com/github)/)"
    copies = [ROOT / f / f"{s}.ipynb" for f in ("notebooks", "build") for s in NOTEBOOKS]
    for path in [ROOT / "README.md", ROOT / "CITATION.cff", *(p for p in copies if p.exists())]:
        stem = path.stem if path in copies else NOTEBOOKS[0]
        links = {name: link.format(new, stem) for name, link in LINKS.items()}
        text = re.sub(rf"{hosts}{re.escape(old)}(?![\w-])", rf"\g<1>{new}", path.read_text())
        if path in copies:  # edited as text: all else in it stays as it is, to the byte
            buttons = " · ".join(f"[{name}]({link})" for name, link in links.items())
            text = re.sub(r'(<!-- buttons -->)[^"\\]*', rf"\1 · run it: {buttons}", text)
        elif path.name == "README.md":
            text = fill(text, "badges", BADGES.format(new, **links))
        times = path.stat()
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # no run becomes out of date


if __name__ == "__main__":
    address("".join(sys.argv[1:]))
