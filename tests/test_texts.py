"""The numbers of README and of the notebooks' texts are those of the tables in figures/.

A line of NUMBERS is a place, a pattern whose groups are numbers, and what they are: expressions of
`mean(table, column, key=value ...)`. A number agrees if what it is rounds to it.
"""

import json
import math
import re
from functools import cache

import pandas as pd
import pytest
from conftest import ROOT

from common import interpolate_at_l0
from helpers import load_images


@cache
def read(name):
    return pd.read_csv(ROOT / f"figures/{name}.csv")


def select(name, column, keys):
    table = read(name)
    for key, value in keys.items():
        table = table[table[key] == value]
    assert len(table), (name, keys)
    return table[column]


def mean(name, column, **keys):
    return float(select(name, column, keys).mean())


def deviation(name, column, **keys):
    return float(select(name, column, keys).std())


def text_of(place):
    text = (ROOT / place).read_text("utf-8")
    if place.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return text


def agrees(said, value):
    said = {"ten": "10"}.get(said, said)
    digits = len(said.partition(".")[2])
    said = float(said.replace(",", "").replace("\N{MINUS SIGN}", "-"))
    return abs(said - value) <= 0.5001 * 10**-digits


README, THEOREM, ABLATION, BENCHMARK = (
    "README.md",
    "notebooks/1_theorem.ipynb",
    "notebooks/2_ablation.ipynb",
    "notebooks/3_benchmark.ipynb",
)
COMPETITION, SPARSITY, DECODER, SCALE = (
    f"questions/{name}.ipynb" for name in ("competition", "sparsity", "decoder", "scale")
)
LAYER, SAE, TUNED, TUNED_SAE = (
    {"model": name}
    for name in ("the paper's layer", "the paper's SAE", "layer, tuned", "tied SAE, tuned")
)


def ends(letter, column):
    return float(read("1_theorem").query("loss.str[0] == @letter")[column].mean())


def ablation(column, letter):
    return mean("2_ablation", column, loss=letter)


def two_by_two(column, letter, switch):
    return mean("competition", column, loss=letter, competition=switch)


def energies(column, loss, energy):
    return mean("competition_energies", column, loss=loss, energy=energy)


def distance(statistic, column):
    return statistic("competition_energies", column, loss="C", energy="|z|")


def clusters(model, switch):
    return 100 * mean("competition_plane", "finds all", model=model, competition=switch)


def changes(column):
    """What removing competition from C changes, at least and at most."""
    runs = read("competition").query("loss == 'C'").pivot(index="seed", columns="competition")
    change = runs[column, "off"] - runs[column, "on"]
    return [change.min(), change.max()]


def benchmark(column, model):
    return mean("3_benchmark", column, **model)


def error_of(model, over):
    return benchmark("MSE", model) / benchmark("MSE", over)


def errors_of_mean_image():
    """Its error as the paper measures it, and its MSE."""
    x, _, x_test, _ = load_images()
    decoded = x.mean(0).expand_as(x_test)
    scaled = decoded * x_test.norm(dim=1, keepdim=True) / decoded.norm(dim=1, keepdim=True)
    return [float((images - x_test).square().mean()) for images in (scaled, decoded)]


def at_20(method, column):
    return mean("decoder_at_20", column, method=method)


def centred(column):
    return at_20("layer, centred digits", column)


def at_16(method, column):
    return mean("decoder_at_16", column, method=method)


def fall(column, rate, first, last):
    of_adam = {"optimizer": "Adam", "rate": rate}
    before = mean("scale", column, **of_adam, epoch=first)
    return before - mean("scale", column, **of_adam, epoch=last)


def held(column, sizes):
    return mean("scale_held", column, sizes=sizes)


def falls_from_rate_to_rate():
    return [*-mean_ends().loc["SGD", "loss"].diff().dropna()]


WITH_WEIGHTS = "changed == 'units, both weights N / 2K'"


def shares(column, units):
    return mean("sparsity_formula", column, units=units, changed="units")


def farthest_from_formula():
    table = read("sparsity_formula").query("units <= 256")
    return float((table["active, %"] - table["formula, %"]).abs().max())


def account(column):
    return mean("decoder_account", column) - mean("decoder_account", "own decoder")


def untrained():
    cells = json.loads((ROOT / SCALE).read_text("utf-8"))["cells"]
    printed = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))
    return float(re.search(r"an untrained layer, scaled: (-\d+)", printed)[1])


def gained():
    """What training gains at one size, but where units die."""
    scaled = mean_ends()["scaled loss"].drop([("SGD", 0.01), ("SGD", 0.1)])
    return [untrained() - scaled.max(), untrained() - scaled.min()]


def farthest_from_growth():
    ends = read("scale_ends").groupby(["optimizer", "rate"])[["late fall", "by growth"]].mean()
    return float((ends["by growth"] / ends["late fall"] - 1).abs().max())


def tuned(method, lr, decoder="own"):
    """What a decoder explains of held-out digits at 17 active units, after 12 epochs."""
    table = read("tuning").query("method == @method and lr == @lr and epochs == 12")
    seeds = table.groupby("seed")[[*table]]
    return float(seeds.apply(interpolate_at_l0, f"{decoder} decoder", 17).mean())


def dead(method):
    """How many units are dead, on average, in the sparsest models of a method."""
    return read("decoder").query("method == @method").groupby("strength")["dead units"].mean().max()


def mean_ends():
    return read("scale_ends").groupby(["optimizer", "rate"]).mean(numeric_only=True)


def gaps():
    """Of SGD's and Adam's ends at each rate: how far apart the losses are, and the sizes."""
    sgd, adam = (mean_ends().loc[name] for name in ("SGD", "Adam"))
    return sgd["loss"] - adam["loss"], 2 * (adam["log norm"] - sgd["log norm"])


def without_variance():
    return mean_ends()["without variance"]


NUMBERS = [
    (
        README,
        r"([\d.]+) of 64 units are active on a digit, in C ([\d.]+\d)",
        lambda: [ablation("L0", letter) for letter in "DC"],
    ),
    (
        README,
        r"code \(([\d.]+)% against ([\d.]+)%\), and a larger error, ([\d.]+) times"
        r"[\s\S]* a probe of ([\d.]+)%, the layer one of ([\d.]+)%, and ([\d.]+) times",
        lambda: [
            benchmark("probe, %", LAYER),
            benchmark("probe, %", SAE),
            error_of(LAYER, over=SAE),
            benchmark("probe, %", TUNED_SAE),
            benchmark("probe, %", TUNED),
            error_of(TUNED, over=TUNED_SAE),
        ],
    ),
    (README, r"paper's SAE, (\d+) of 64 are dead", lambda: [benchmark("dead units", SAE)]),
    (
        README,
        r"\| C, with .* \| ([\d,]+) \| ([\d,]+) \|\n\| B, without .* \| ([\d,]+) \| ([\d,]+) \|",
        lambda: [
            two_by_two("redundancy", loss, switch) for loss in "CB" for switch in ("on", "off")
        ],
    ),
    (
        README,
        r"\| with the price \| ([\d.]+) \| ([\d.]+) \|\n"
        r"\| without the price \| ([\d.]+) \| ([\d.]+) \|",
        lambda: [
            mean("sparsity_parts", "L0", price=price, competition=competition)
            for price in ("on", "off")
            for competition in ("on", "off")
        ],
    ),
    *(
        (
            README,
            rf"\| {row} \| (\d+)% \| (\d+)% \| (\d+)% \| (\d+)% \|",
            lambda at=at, layer=layer: [
                at(layer, "own decoder"),
                at(layer, "best decoder"),
                at("L1 SAE", "own decoder"),
                at("TopK SAE", "own decoder"),
            ],
        )
        for row, at, layer in (
            ("digits, 20 of 64 active", at_20, "layer"),
            ("digits, weight decay in the layer", at_20, "layer, weight decay"),
            (".* 16 of 576 active", at_16, "layer"),
            ("the same, weight decay in the layer", at_16, "layer, weight decay"),
        )
    ),
    (
        README,
        r"SGD's by \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|\n"
        r".* variance term by \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|",
        lambda: [*gaps()[0], *gaps()[1]],
    ),
    (
        THEOREM,
        r"from (\d+) of 100 starts two units",
        lambda: [ends("B", "two alike, %")],
    ),
    (THEOREM, r"from (\d+) of 100 each unit takes", lambda: [ends("C", "a cluster each, %")]),
    (
        ABLATION,
        r"redundancy of ([\d,]+), of .* brings the redundancy down to (\d+)",
        lambda: [ablation("redundancy", letter) for letter in "BC"],
    ),
    (
        ABLATION,
        r"in which (\d+) units of E are dead",
        lambda: [mean("2_ablation", "dead units", loss="E", seed=0)],
    ),
    (ABLATION, r"in E, (\d+) of 64 are dead", lambda: [ablation("dead units", "E")]),
    (
        ABLATION,
        r"untrained layer, which has (\d+)%",
        lambda: [benchmark("probe, %", {"model": "untrained layer"})],
    ),
    (BENCHMARK, r"mean image, with ([\d.]+\d)\. It", lambda: [benchmark("paper's error", TUNED)]),
    (ABLATION, r"\(B\) (\d+) units are active", lambda: [ablation("L0", "B")]),
    (ABLATION, r"But (\d+) of 64 are active on a digit", lambda: [ablation("L0", "D")]),
    (ABLATION, r"D's (\d\.\d+) is", lambda: [ablation("entropy", "D")]),
    (
        BENCHMARK,
        r"better probe, ([\d.]+)% against ([\d.]+)%; an untrained layer has (\d+)%, .*"
        r" ([\d.]+) times by the MSE",
        lambda: [
            benchmark("probe, %", LAYER),
            benchmark("probe, %", SAE),
            benchmark("probe, %", {"model": "untrained layer"}),
            error_of(LAYER, over=SAE),
        ],
    ),
    (
        BENCHMARK,
        r"with ([\d.]+) against ([\d.]+); with a gain .* an MSE of ([\d.]+) against ([\d.]+\d)",
        lambda: [
            benchmark("paper's error", LAYER),
            errors_of_mean_image()[0],
            benchmark("MSE", LAYER),
            errors_of_mean_image()[1],
        ],
    ),
    (BENCHMARK, r"(\d+) of its 64 units are dead", lambda: [benchmark("dead units", SAE)]),
    (
        BENCHMARK,
        r"probe, and ([\d.]+) times the error\..* with ([\d.]+)% against ([\d.]+)%, and clearly",
        lambda: [
            error_of(TUNED, over=TUNED_SAE),
            benchmark("probe, %", TUNED),
            benchmark("probe, %", TUNED_SAE),
        ],
    ),
    (
        BENCHMARK,
        r"explains (\d+)% of the variance, at its best rate (\d+)%, and with weight decay (\d+)%\."
        r" The tied SAE explains (\d+)%, .* own (\d+)% as well, and a TopK SAE (\d+)%",
        lambda: [
            tuned("layer", 0.001),
            tuned("layer", 0.002),
            tuned("layer, decay 0.8", 0.008),
            tuned("tied SAE", 0.016),
            tuned("L1 SAE", 0.008),
            tuned("TopK SAE", 0.004),
        ],
    ),
    (
        COMPETITION,
        r"correlate by ([\d.]+), on .* they correlate by ([\d.]+) as well, and so they do if 0.1%"
        r" .* two starts correlate by ([\d.]+\d)",
        lambda: [
            two_by_two("same units", "C", "off"),
            energies("same units, off", "C", "ReLU"),
            energies("same units, start", "C", "ReLU"),
        ],
    ),
    (
        COMPETITION,
        r"varies by (\d+)% in C with \S+ and by (\d+)% in B with a softplus, .* from ([\d.]+) to"
        r" ([\d.]+) in the one, and from ([\d,]+) to ([\d,]+) in",
        lambda: [
            energies("variation of Z, %", "C", "|z|"),
            energies("variation of Z, %", "B", "softplus"),
            energies("redundancy", "C", "|z|"),
            energies("redundancy, off", "C", "|z|"),
            energies("redundancy", "B", "softplus"),
            energies("redundancy, off", "B", "softplus"),
        ],
    ),
    (
        COMPETITION,
        r"redundancy from ([\d,]+) to ([\d,]+), and the probe, .* from ([\d.]+) to ([\d.]+)%",
        lambda: [
            two_by_two(column, "B", switch)
            for column in ("redundancy", "probe, %")
            for switch in ("on", "off")
        ],
    ),
    (
        COMPETITION,
        r"probe rises by ([\d.]+) to ([\d.]+) points",
        lambda: changes("probe, %"),
    ),
    (
        COMPETITION,
        r"number varies by (\d+)% on average .* In C it varies by (\d+)%",
        lambda: [two_by_two("variation of Z, %", loss, "off") for loss in "BC"],
    ),
    (
        COMPETITION,
        r"seed, from ([\d.]+) ± ([\d.]+) to ([\d.]+) ± ([\d.]+), .* at ([\d.]+) ± ([\d.]+\d)",
        lambda: [
            distance(statistic, column)
            for column in ("redundancy", "redundancy, off", "redundancy, noise")
            for statistic in (mean, deviation)
        ],
    ),
    (
        COMPETITION,
        r"all of them from ([\d.]+)% .*? (\d+)% of the starts of a layer .* and (\d+)% without"
        r".* from ([\d.]+)% and from (\d+)%",
        lambda: [
            clusters("five Gaussians", "off"),
            clusters("C", "on"),
            clusters("C", "off"),
            clusters("B", "on"),
            clusters("B", "off"),
        ],
    ),
    (
        "docs/index.html",
        r"redundancy of B, .*\n.*from ([\d,]+) to ([\d,]+), and changes",
        lambda: [two_by_two("redundancy", "B", switch) for switch in ("on", "off")],
    ),
    (
        SPARSITY,
        r"within some (ten) percentage points",
        lambda: [farthest_from_formula()],
    ),
    (
        SPARSITY,
        r"of 512 units (\d+)% are active, without decorrelation (\d+)%, and the formula says (\d+)",
        lambda: [
            shares("active, %", 512),
            mean("sparsity_formula", "active, %", changed="units, no decorrelation"),
            shares("formula, %", 512),
        ],
    ),
    (
        SPARSITY,
        r"would give clothes ([\d.]+), where the error of the SAE has ([\d.]+\d)",
        lambda: [
            1 - mean("sparsity_strangers", "AUROC", score="C: log-sum-exp", strangers="clothes"),
            mean("sparsity_strangers", "AUROC", score="SAE: error", strangers="clothes"),
        ],
    ),
    (
        SPARSITY,
        r"from (\d+)% after 24 epochs to (\d+)% after 100",
        lambda: [
            mean("sparsity_formula", "active, %", changed="nothing"),
            ablation("L0", "C") / 0.64,
        ],
    ),
    (
        SPARSITY,
        r"keep the share between (\d+) and (\d+)%, also",
        lambda: [
            read("sparsity_formula").query(WITH_WEIGHTS)["active, %"].min(),
            read("sparsity_formula").query(WITH_WEIGHTS)["active, %"].max(),
        ],
    ),
    (
        SPARSITY,
        r"Inactive units hold ([\d.]+)%",
        lambda: [mean("sparsity_reach", "inactive, %", loss="C")],
    ),
    (
        SPARSITY,
        r"without it (\d+) units and more",
        lambda: [mean("sparsity_parts", "L0", price="off", competition="on")],
    ),
    (
        DECODER,
        r"explains (\d+)% of the variance, the best decoder of the same code (\d+)%, and that"
        r" of an L1 SAE's code (\d+)%\. So .* gains (\d+) points.* The (\d+) that are still"
        r"[\s\S]* helps both decoders, with (\d+) and (\d+)%",
        lambda: [
            at_20("layer", "own decoder"),
            at_20("layer", "best decoder"),
            at_20("L1 SAE", "best decoder"),
            at_20("layer", "best decoder") - at_20("layer", "own decoder"),
            at_20("L1 SAE", "best decoder") - at_20("layer", "best decoder"),
            at_20("layer, weight decay", "own decoder"),
            at_20("layer, weight decay", "best decoder"),
        ],
    ),
    (
        DECODER,
        r"weights, too, and explains (\d+)%\.[\s\S]* rises from (\d+)% to (\d+)%"
        r"[\s\S]* at 20 units, with (\d+)%",
        lambda: [
            at_20("tied SAE", "own decoder"),
            at_20("untrained layer", "own decoder"),
            at_20("untrained layer", "best decoder"),
            at_20("principal components", "best decoder"),
        ],
    ),
    (
        DECODER,
        r"better code, with (\d+)% by the best decoder, and a worse \S+ with (\d+)%",
        lambda: [centred("best decoder"), centred("own decoder")],
    ),
    (
        DECODER,
        r"on average (\d+) of 64 with weight decay, and (\d+) in the tied SAE",
        lambda: [dead("layer, weight decay"), dead("tied SAE")],
    ),
    (
        DECODER,
        r"explains (\d+)% at the rate chosen, .002, and (\d+)% at .016\. .* weight decay at"
        r" .002 gives (\d+) and (\d+)%, where the layer without it has (\d+) and (\d+)%",
        lambda: [
            tuned("layer", 0.002, "best"),
            tuned("layer", 0.016, "best"),
            tuned("layer, decay 0.8", 0.002),
            tuned("layer, decay 0.8", 0.002, "best"),
            tuned("layer", 0.002),
            tuned("layer", 0.002, "best"),
        ],
    ),
    (
        DECODER,
        r"explain less, (\d+)%, and smoothed (\d+)%\. .* gain (\d+) of the (\d+) points"
        r".* gain (\d+) more\. The last (\d+) are",
        lambda: [
            mean("decoder_account", "divided"),
            mean("decoder_account", "smoothed"),
            account("both"),
            account("best decoder"),
            account("unit by unit") - account("both"),
            account("best decoder") - account("unit by unit"),
        ],
    ),
    (
        DECODER,
        r"it explains (\d+)%, less than the layer with weight decay does by \S+ (\d+)%",
        lambda: [at_16("tied SAE", "own decoder"), at_16("layer, weight decay", "own decoder")],
    ),
    (
        DECODER,
        r"from (\d+) to (\d+)%, where an L1 SAE explains (\d+)%; and .* from (\d+) to (\d+)%, where"
        r" the L1 SAE recovers (\d+)%\.[\s\S]* is ([\d.]+) nats .* and ([\d.]+) more",
        lambda: [
            at_16("layer", "own decoder"),
            at_16("layer", "best decoder"),
            at_16("L1 SAE", "own decoder"),
            at_16("layer", "loss recovered"),
            at_16("layer", "loss recovered, best"),
            at_16("L1 SAE", "loss recovered"),
            mean("language", "loss with rows"),
            mean("language", "loss with mean") - mean("language", "loss with rows"),
        ],
    ),
    (
        SCALE,
        r"losses end between (-\d+) and (-[\d,]+\d)\. .* between (-\d+) and (-\d+)\. [\s\S]*"
        r" on average between (-\d+) and (-[\d,]+\d), where an untrained layer has (-\d+)",
        lambda: [
            mean_ends()["loss"].max(),
            mean_ends()["loss"].min(),
            without_variance().max(),
            without_variance().min(),
            mean_ends()["scaled loss"].max(),
            mean_ends()["scaled loss"].min(),
            untrained(),
        ],
    ),
    (
        SCALE,
        r"gained between (\d+) and (\d+) over an untrained",
        gained,
    ),
    (SCALE, r"fall of the loss within (\d+)%", lambda: [math.ceil(100 * farthest_from_growth())]),
    (
        SCALE,
        r" end (\d+) to (\d+) below .* by (\d+) to (\d+), at each rate within (\d+)%",
        lambda: [
            *(of_rates.agg(f) for of_rates in gaps() for f in ("min", "max")),
            math.ceil(100 * (gaps()[1] / gaps()[0] - 1).abs().max()),
        ],
    ),
    (
        SPARSITY,
        r"with SGD, from (\d+) to (\d+) of 64 units",
        lambda: [*mean_ends()["L0"].agg(["min", "max"])],
    ),
    (
        SCALE,
        r"L0 falls from ([\d.]+) to ([\d.]+\d)",
        lambda: [mean_ends()["L0"][("SGD", 0.0001)], mean_ends()["L0"][("Adam", 0.1)]],
    ),
    (
        SCALE,
        r"ends at some (-[\d,]+\d), .* with ([\d.]+)% at a size of 3 for ([\d.]+)% of free units,"
        r" and worst at 100, with ([\d.]+)%\. .* some (\d+), and the probe has ([\d.]+)%",
        lambda: [
            held("scaled loss", "held at 10"),
            held("probe, %", "held at 3"),
            held("probe, %", "free"),
            held("probe, %", "held at 100"),
            held("L0", "held at 100"),
            held("probe, %", "held at 1"),
        ],
    ),
    (
        SCALE,
        r"it falls by (\d+) to (\d+) at three rates, and at \.0001 by (\d+)\.",
        lambda: [fall("loss", rate, 40, 100) for rate in (0.001, 0.1, 0.0001)],
    ),
    (
        SCALE,
        r"rate to rate it falls by (\d+), (\d+) and (\d+), in",
        lambda: falls_from_rate_to_rate(),
    ),
    (
        SCALE,
        r"loss has a standard deviation of (\d+)",
        lambda: [deviation("scale_ends", "loss", optimizer="SGD", rate=0.1)],
    ),
    (
        SCALE,
        r"Adam's is ([\d.]+) and ([\d.]+) better",
        lambda: [*(mean_ends()["probe, %"]["Adam"] - mean_ends()["probe, %"]["SGD"])[:0.001]],
    ),
]


@pytest.mark.parametrize("place, pattern, values", NUMBERS)
def test_number(place, pattern, values):
    found = [*re.finditer(pattern, text_of(place))]
    assert found, "the text has changed: change the pattern, too"
    for match in found:
        for said, value in zip(match.groups(), values(), strict=True):
            assert agrees(said, value), f"{match[0]!r} says {said}; the record has {value:.5g}"
