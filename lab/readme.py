"""`make readme`: the table of README.md, from figures/3_benchmark.json."""

import re
import sys

import pandas as pd

from lab import ROOT, record, show, tables

TABLE = re.compile(r"(?<=<!-- result -->).*?(?=<!-- /result -->)", re.DOTALL)


def front_table(benchmark):
    """The table, from the content of a 3_benchmark.json: Markdown.

    Raises ValueError for a quick run or one of a single seed.
    """
    parameters = benchmark["parameters"]
    if parameters["QUICK"] or len(parameters["SEEDS"]) < 2:
        raise ValueError("figures/3_benchmark.json is a quick run or one of a single seed")
    frame = pd.DataFrame(benchmark["at_l0"]).set_index(["method", "seed"])
    shown = tables.reconstruction(frame.loc[benchmark["on_front_page"]], benchmark["variance"])
    shown.index.name = "MNIST, 10 of 64 units active"
    columns = ["parameters", "MSE", "variance explained", "with least squares"]
    shown = shown[columns].rename(columns={"with least squares": "with a least-squares decoder"})
    return show.markdown(shown)


def main():
    """Write the table into README.md -> exit status."""
    page = ROOT / "README.md"
    try:
        table = front_table(record.read_results("3_benchmark", ROOT / "figures"))
    except (FileNotFoundError, ValueError) as error:
        print(f"README.md is left as it is: {error}; run `make figures` first", file=sys.stderr)
        return 2
    text, found = TABLE.subn(lambda _: f"\n\n{table}\n\n", page.read_text(encoding="utf-8"))
    if not found:
        print("README.md has no <!-- result --> and <!-- /result -->", file=sys.stderr)
        return 2
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
