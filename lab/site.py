"""Makes the web site, build/site: README as its front page, the notebooks, and the pages to play
with. Files lie there as in the repository, so that links between them hold."""

import html
import posixpath
import re
import shutil

import nbformat
from nbconvert import HTMLExporter

from lab import NOTEBOOKS, ROOT

SITE = ROOT / "build/site"
COPIED = ("figures/*.png", "notebooks/*.html", "notebooks/*.js")
CONVERTED = {f"notebooks/{name}.ipynb": f"notebooks/{name}.html" for name in NOTEBOOKS}
CONVERTED["README.md"] = "index.html"
STYLE = """<style>main { max-width: 60rem; margin: auto } img { max-width: 100% }
.highlight pre { font-family: var(--jp-code-font-family, monospace) }</style>"""


def with_links(page, folder, repository):
    """Return the HTML of a file in this folder of the repository with links that hold in the site:
    to what is in it, or else to the repository; without its address, the text of a link stays."""

    def link(found):
        start, url, end, text = found.groups()
        path = posixpath.normpath(posixpath.join(folder, url))
        if path in CONVERTED:
            url = posixpath.relpath(CONVERTED[path], folder or ".")
        elif not (SITE / path).is_file():
            url = repository and f"{repository}/blob/HEAD/{path}"
        return f"{start}{url}{end}{text}</a>" if url else text

    return re.sub(r'(?s)(<a [^>]*?href=")([^":#]+)(["#][^>]*>)(.*?)</a>', link, page)


def describe_images(notebook):
    """Make images HTML with their descriptions, which nbconvert would leave out."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
                image = f'<img alt="{alt}" src="data:image/png;base64,{output.data["image/png"]}">'
                output.data = {"text/html": image}


def hide_sources(notebook):
    """Leave out the code that is folded in Jupyter: imports, and what a run is set up with."""
    for cell in notebook.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata.transient = {"remove_source": True}


def write_page(path, notebook, title, repository):
    """Write a notebook as HTML, in place of the file at this path of the repository."""
    describe_images(notebook)
    hide_sources(notebook)
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    page = with_links(page, posixpath.dirname(path), repository)
    page = page.replace("</head>", f"{STYLE}</head>", 1)
    (SITE / CONVERTED[path]).write_text(page, encoding="utf-8")


def make_site():
    shutil.rmtree(SITE, ignore_errors=True)
    for path in (path for pattern in COPIED for path in ROOT.glob(pattern)):
        copy = SITE / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    found = re.search(r'^repository-code: "(.*)"', citation, re.MULTILINE)  # by `make publish`
    repository = found and found[1]
    for path in CONVERTED:
        text = (ROOT / path).read_text("utf-8")
        if path == "README.md":
            front = nbformat.v4.new_markdown_cell(text)
            notebook = nbformat.v4.new_notebook(cells=[front])
        else:
            notebook = nbformat.reads(text, as_version=4)
        title = re.search("^# (.*)", notebook.cells[0].source)[1]
        write_page(path, notebook, title, repository)


if __name__ == "__main__":
    make_site()
