"""Write the address of the repository on GitHub, and of its web site, into texts, notebooks and
pages: `make publish [REPO=owner/name]`. Without REPO, the address is that of the remote origin."""

import re
import subprocess
import sys

from lab import NOTEBOOKS, ROOT

BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"


def repository_of(address):
    """Return owner/name of a remote's address at GitHub, or None."""
    found = re.fullmatch(r"(\w+://)?([^/@]+@)?github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?/?", address)
    return found and found[3]


def badges(repository):
    """Return Markdown of links that open the notebooks on Binder and Colab."""
    links = []
    for name in NOTEBOOKS:
        path = f"notebooks/{name}.ipynb"
        binder = f"{BINDER}/v2/gh/{repository}/HEAD?labpath={path}"
        colab = f"{COLAB}/github/{repository}/blob/main/{path}"
        links.append(f"[![Binder]({BINDER}/badge_logo.svg)]({binder})")
        links.append(f"[![Colab]({COLAB}/assets/colab-badge.svg)]({colab})")
    return " ".join(links)


def publish(repository):
    """Write the addresses, in place of those that were written before."""
    owner, name = repository.split("/")
    url, site = f"https://github.com/{repository}", f"https://{owner.lower()}.github.io/{name}/"
    link = f"[Read and play in the browser]({site})"
    notebooks = [f"notebooks/{name}.ipynb" for name in NOTEBOOKS]
    pages = ["notebooks/in_the_plane.html", "notebooks/on_digits.html"]
    for paths, pattern, new in (
        (["README.md"], "(?<=<!-- badges -->).*?(?=<!-- /badges -->)", badges(repository)),
        (["README.md"], "(?<=<!-- site -->).*?(?=<!-- /site -->)", link),
        (["README.md"], r"(?<=\]\()[^()]*(?=notebooks/on_digits\.html\))", site),
        (notebooks, r"(?<=\]\()[^()]*(?=(on_digits|in_the_plane)\.html\))", f"{site}notebooks/"),
        (["CITATION.cff"], '^(# )?repository-code: ".*?"', f'repository-code: "{url}"'),
        (notebooks, r'(?<=REPOSITORY = \\").*?(?=\\")', url),
        (pages, '(?<=const REPOSITORY = ").*?(?=")', url),
    ):
        for path in paths:
            text = (ROOT / path).read_text("utf-8")
            text = re.sub(pattern, lambda _, new=new: new, text, flags=re.MULTILINE)
            (ROOT / path).write_text(text, "utf-8")
    print(f"Written: {url} and {site}")


if __name__ == "__main__":
    command = ["git", "-C", ROOT, "remote", "get-url", "origin"]
    origin = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    address = f"https://github.com/{sys.argv[1]}" if sys.argv[1:] else origin
    if not repository_of(address):
        sys.exit(
            "Run `make publish REPO=owner/name`, as on GitHub; without REPO, the remote "
            f"origin has to be at github.com, and it is {origin or 'not set'}"
        )
    publish(repository_of(address))
