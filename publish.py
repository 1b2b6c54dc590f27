"""What `make` does to notebooks and README after a run: `python publish.py COMMAND`.

clean NAME ...  executed notebooks from build/ into notebooks/, without timings and machine names
results         the results table of README.md, from figures/*.json
badges          the public address (repository-code in CITATION.cff) into README.md and notebooks/
html            the notebooks and an index as self-contained pages in build/html/
"""

import base64
import io
import json
import re
import sys
from pathlib import Path

import nbformat
import numpy as np

ROOT = Path(__file__).resolve().parent
STEMS = ("1_theorem", "2_ablation", "3_benchmark")


# --- Executed notebooks -------------------------------------------------------------------


def clean(*stems):
    """Tags, ids and outputs stay; pictures get 256 colours, which keeps a file below 1 MB."""
    from PIL import Image

    for stem in stems:
        notebook = nbformat.read(ROOT / "build" / f"{stem}.ipynb", 4)
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
        for cell in notebook.cells:
            tags = cell.metadata.get("tags")
            cell.metadata = {"tags": tags} if tags else {}
            for output in cell.get("outputs", []):
                if "image/png" not in output.get("data", {}):
                    continue
                picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                small = io.BytesIO()
                picture.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(small.getvalue()).decode()
        nbformat.write(notebook, ROOT / "notebooks" / f"{stem}.ipynb")


# --- The results table --------------------------------------------------------------------


def results():
    _fill("README.md", "results", results_table())


def results_table():
    """Published value, ours, verdict: Markdown, all but the published column from figures/."""
    runs = {s: json.loads((ROOT / "figures" / f"{s}.json").read_text()) for s in STEMS}
    claims = {c["claim"]: c for run in runs.values() for c in run["claims"]}
    ablation = {r["config"]: r for r in runs["2_ablation"]["table"]}
    identity = next(r for r in runs["1_theorem"]["table"] if r["energies"] == "random")

    def per_config(name, configs, digits):
        means = [ablation[c][name]["mean"] for c in configs]
        return " / ".join("–" if m is None else f"{m:.{digits}f}" for m in means)

    def benchmark(method, value, digits):
        values = [value(r) for r in runs["3_benchmark"]["table"] if r["method"] == method]
        return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"

    def measured(claim, digits=2):
        return f"{np.mean(claims[claim]['measured']):.{digits}f}"

    def norm_matched(row):
        return row["read_outs"]["norm-matched"]

    ours, sae = "ours as published", "published SAE"
    probes = [benchmark(m, lambda r: r["probe_accuracy"], 2) for m in (ours, sae)]
    l0s = [benchmark(m, lambda r: r["l0"], 1) for m in (ours, sae)]
    features = "features comparable to a tuned SAE's at equal L0"
    gains = claims[features]["measured"]
    as_good = "W' with gain + offset reconstructs as well as a tuned SAE at equal L0"
    transpose = (
        f"{benchmark(ours, norm_matched, 4)} / {benchmark(ours, lambda r: r['mse'], 4)} / "
        f"{runs['3_benchmark']['references'][0]['mse']:.4f}"
    )
    parameters = "fewer parameters than an SAE of the same width"
    rows = [  # claim, what, published, here
        (
            "dL/dE = r, for every parameterisation of E, in float32 and float64",
            "largest gap between gradient and responsibility, float32",
            "4.5e-8",
            f"{identity['largest']:.1e}",
        ),
        (
            "A: with the log-sum-exp alone, everything dies",
            "dead units of 64, A / B / C / D",
            "64 / 0 / 0 / 0",
            per_config("dead_units", "ABCD", 0),
        ),
        (
            "the decorrelation term removes the redundancy that is left (C against B)",
            "redundancy, B / C / D",
            "1875 / 29 / 28",
            per_config("redundancy", "BCD", 0),
        ),
        (
            "the published table is reproduced",
            "entropy of the responsibilities, A / B / C / D",
            "4.16 / 3.77 / 3.85 / 1.99",
            per_config("responsibility_entropy", "ABCD", 2),
        ),
        (
            "the log-sum-exp makes the code sparse (C against D)",
            "active units (L0) of 64, C / D",
            "17.2 / –",
            per_config("l0", "CD", 1),
        ),
        (
            "better features than the published SAE",
            "linear probe (%), ours / published SAE",
            "93.43 ± 0.38 / 90.26 ± 0.32",
            " / ".join(probes),
        ),
        (
            "sparser than the published SAE",
            "L0, ours / published SAE",
            "17.2 / 32.2",
            " / ".join(l0s),
        ),
        (parameters, "parameters, relative to the SAE", "0.50", measured(parameters)),
        (
            "W' beats the mean input, once its units are restored",
            "MSE of W': norm-matched / with gain + offset / mean image",
            "0.143 / – / –",
            transpose,
        ),
        (
            features,
            "linear probe against a *tuned* SAE at equal L0, points (surrogate / log det)",
            "–",
            " / ".join(f"{np.mean(gains[form]):+.2f}" for form in ("surrogate", "log det")),
        ),
        (
            as_good,
            "reconstruction error of W', relative to a *tuned* SAE's at equal L0",
            "–",
            measured(as_good),
        ),
    ]
    lines = ["| claim | measure | published | here | verdict |", "|---|---|---|---|---|"]
    for claim, what, published, here in rows:
        verdict = "holds" if claims[claim]["holds"] else "**fails**"
        lines.append(f"| {claim} | {what} | {published} | {here} | {verdict} |")
    return "\n".join(lines)


# --- The public address -------------------------------------------------------------------


def badges():
    _fill("README.md", "badges", badge_line("1_theorem"))
    for stem in STEMS:
        path = ROOT / "notebooks" / f"{stem}.ipynb"
        notebook = nbformat.read(path, 4)
        first = notebook.cells[0]
        first.source = re.sub(r"(?m)^\*Run it: .*\*$", run_line(stem), first.source)
        code = next(c for c in notebook.cells if c.cell_type == "code")
        line = f'    repository = "{address()}"'
        code.source = re.sub(r'(?m)^    repository = ".*"$', line, code.source)
        nbformat.write(notebook, path)


def address():
    text = (ROOT / "CITATION.cff").read_text()
    return re.search(r'(?m)^repository-code: "?([^"\n]+?)/?"?$', text)[1]


def links(stem):
    """Where a notebook opens live, in Binder and in Colab."""
    name = "/".join(address().split("/")[-2:])
    return {
        "Binder": f"https://mybinder.org/v2/gh/{name}/HEAD?urlpath=lab/tree/notebooks/{stem}.ipynb",
        "Colab": f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{stem}.ipynb",
    }


def badge_line(stem):
    pictures = {
        "Binder": "https://mybinder.org/badge_logo.svg",
        "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
    }
    return " ".join(f"[![Open in {k}]({pictures[k]})]({v})" for k, v in links(stem).items())


def run_line(stem):
    return "*Run it: " + " · ".join(f"[{k}]({v})" for k, v in links(stem).items()) + "*"


def _fill(path, mark, text):
    file = ROOT / path
    pattern = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    new, n = re.subn(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", file.read_text(), flags=re.S)
    if n != 1:
        raise ValueError(f"{path} has {n} places marked {mark!r}, not 1")
    file.write_text(new)


# --- Pages --------------------------------------------------------------------------------

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1rem/1.6 Georgia, serif; color: #222; max-width: 48rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: break-word; }}
h1, h2, h3 {{ font-family: Helvetica, Arial, sans-serif; line-height: 1.25; }}
pre, code {{ font: 0.8rem/1.45 Menlo, Consolas, monospace; }}
pre {{ overflow-x: auto; background: #f6f6f4; padding: 0.7rem; border-radius: 4px; }}
table {{ display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.85rem; }}
th, td {{ border-bottom: 1px solid #ddd; padding: 0.3rem 0.6rem; text-align: left; }}
img {{ max-width: 100%; height: auto; }}
math[display="block"] {{ overflow-x: auto; margin: 1rem 0; }}
.jp-Prompt, .prompt {{ display: none; }}
{style}
.highlight .err {{ border: 0 !important; }}
</style>
{body}
</html>
"""


def pages():
    """The notebooks and the README as pages that need nothing but a browser."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    folder = ROOT / "build" / "html"
    folder.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter(template_name="basic", embed_images=True, anchor_link_text="")
    for stem in (*STEMS, "index"):
        if stem == "index":
            text = re.sub(r"\[!\[Open in.*\n", "", (ROOT / "README.md").read_text())  # remote
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
        else:
            notebook = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", 4)
        formulas = []  # out of the way of the Markdown parser, and back into what it made
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _take_formulas(cell.source, formulas)
            for output in cell.get("outputs", []):
                if "text/markdown" in output.get("data", {}):
                    text = output.data["text/markdown"]
                    output.data["text/markdown"] = _take_formulas(text, formulas)
        where = {"metadata": {"path": str(ROOT if stem == "index" else ROOT / "notebooks")}}
        body, _ = exporter.from_notebook_node(notebook, resources=where)
        body = re.sub(r'href="(?:notebooks/)?(\w+)\.ipynb', r'href="\1.html', body)
        body = body.replace('href="../README.md"', 'href="index.html"')
        body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
        body = re.sub(r"FORMULA(\d+)X", lambda m: formulas[int(m[1])], body)  # noqa: B023
        body = re.sub(r'(<h\d id=)"([^"]+)"', lambda m: f'{m[1]}"{_anchor(m[2])}"', body)
        title = re.search(r"(?m)^# (.*)$", notebook.cells[0].source)[1]
        style = HtmlFormatter().get_style_defs(".highlight")
        page = PAGE.format(title=title, style=style, body=body)
        (folder / f"{stem}.html").write_text(page, encoding="utf-8")


def _anchor(heading):
    """An id as GitHub makes it, which is what the notebooks link to."""
    return re.sub(r"[^\w-]", "", heading.lower())


def _take_formulas(text, formulas):
    """Put marks for $...$ and $$...$$ and add them to `formulas` as MathML; code stays as it is.

    Browsers draw MathML without a script.
    """
    from latex2mathml.converter import convert

    def mark(match):
        if match["code"]:
            return match["code"]
        display = "inline" if match["block"] is None else "block"
        formulas.append(convert(match["block"] or match["inline"], display=display))
        return f"FORMULA{len(formulas) - 1}X"

    pattern = r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$"
    return re.sub(pattern, mark, text, flags=re.S)


COMMANDS = {"clean": clean, "results": results, "badges": badges, "html": pages}

if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["?"]
    if command not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[command](*arguments)
