"""Write the address of the repository on GitHub into README, notebooks, page and citation.

`make publish REPO=owner/name`; run again, it replaces the address that was written before.
"""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"


def launch_links(repository, paths):
    """Return Markdown of links that open the notebooks on Binder and Colab."""
    links = []
    for path in paths:
        binder = f"{BINDER}/v2/gh/{repository}/HEAD?labpath={path}"
        colab = f"{COLAB}/github/{repository}/blob/main/{path}"
        links.append(f"{Path(path).stem}: [Binder]({binder}), [Colab]({colab})")
    return "Open " + "; ".join(links) + "."


def main(repository):
    if not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", repository):
        sys.exit(f"make publish REPO=owner/name, as on GitHub; REPO is {repository!r}")
    owner, name = repository.split("/")
    url, page = f"https://github.com/{repository}", f"https://{owner.lower()}.github.io/{name}/"
    folders = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("questions/*.ipynb")]
    notebooks = sorted(path.relative_to(ROOT).as_posix() for path in folders)
    executed = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("build/*.ipynb")]
    opened = launch_links(repository, notebooks)
    link = f'<a class="repository" href="{url}">The repository</a>'
    for path, pattern, new in [
        ("README.md", r"(?s)(?<=<!-- badges -->).*?(?=<!-- /badges -->)", opened),
        ("README.md", r"(?s)(?<=<!-- page -->).*?(?=<!-- /page -->)", f"[this page]({page})"),
        ("docs/index.html", r"(?s)(?<=<!-- address -->).*?(?=<!-- /address -->)", link),
        ("CITATION.cff", r'(?m)^(# )?repository-code: ".*"', f'repository-code: "{url}"'),
        *[(path, r'(?<=REPOSITORY = \\").*?(?=\\")', repository) for path in notebooks + executed],
        *[(path, r"(?<=\]\()[^()]*(?=\)<!-- page -->)", page) for path in notebooks + executed],
    ]:
        file = ROOT / path
        written = file.stat().st_mtime
        file.write_text(re.sub(pattern, lambda _, new=new: new, file.read_text("utf-8")), "utf-8")
        os.utime(file, (written, written))  # a notebook need not run again for its address
    print(f"Written: {url} and {page}")


if __name__ == "__main__":
    main(sys.argv[1])
