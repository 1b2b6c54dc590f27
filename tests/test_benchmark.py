"""lab/benchmark.py: what methods are, how they are trained, steered, refused and drawn."""

import math
import threading
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

import helpers as h
from lab import benchmark, decoding
from lab.benchmark import COMPONENTS, PAPER_ADAM, PAPER_DECAY, PAPER_SGD, Method
from lab.figures import benchmark as figures

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-8)
METHODS = {method.name: method for method in (*benchmark.PAPER_METHODS, *benchmark.METHODS)}
DIGITS = torch.tensor(load_digits().data).float() / 16
SETTING = {"n_units": 16, "target_l0": 4, "epochs": 1, "batch_size": 64}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- Methods --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_losses_are_pairs_of_a_penalty_and_the_rest():
    """With kappa = tr Cov(x) / K. An SAE without ties is penalised for the norms of its decoder."""
    x = normal(64, 12)
    sae, tied, top = (METHODS[n].new_model(x, 8, 3, 0) for n in ("L1 SAE", "tied SAE", "TopK SAE"))
    sae.V.data *= torch.arange(1.0, 9)[:, None]
    E = sae(x)
    spread = h.variance_loss(E) + h.decorrelation_loss(E)
    decay = np.trace(np.cov(x.T)) / 8 * sae.W.pow(2).sum()
    error = (E @ sae.V + sae.c - x).pow(2)
    pairs = {
        PAPER_ADAM: (h.lse_loss(E), spread),
        PAPER_DECAY: (h.lse_loss(E), spread + decay),
        "the paper's model": (h.lse_loss(E), spread),
        "the paper's SAE": (0.01 * E.mean(), error.mean()),
        "L1 SAE": ((E * sae.V.pow(2).sum(1).sqrt()).sum(), error.sum()),
    }
    for name, pair in pairs.items():
        close(METHODS[name].losses(sae, x), pair)
    for model, penalty in ((tied, tied(x).sum()), (top, 0)):
        name = "tied SAE" if model is tied else "TopK SAE"
        close(METHODS[name].losses(model, x), (penalty, (model.reconstruct(x) - x).pow(2).sum()))
    assert METHODS[PAPER_SGD].losses is METHODS[PAPER_ADAM].losses


def test_models_are_what_the_texts_say():
    x = normal(200, 784).float() + 0.3
    models = {name: method.new_model(x, 64, 17, 1) for name, method in METHODS.items()}
    sizes = {
        "the paper's model": 50_240,
        PAPER_ADAM: 50_240,
        "the paper's SAE": 101_200,
        "L1 SAE": 101_200,
        "tuned tied SAE": 51_024,
        "tied SAE": 51_024,
    }
    for name, size in sizes.items():
        assert sum(p.numel() for p in models[name].parameters()) == size
    for name in ("tied SAE", "tuned tied SAE", "L1 SAE", "TopK SAE", COMPONENTS):
        assert models[name].mean is not None
    for name in ("the paper's model", "the paper's SAE", PAPER_ADAM, PAPER_SGD, PAPER_DECAY):
        assert models[name].mean is None
    assert ((models["TopK SAE"](x) > 0).sum(1) == 17).all()
    papers = models["the paper's SAE"]  # both layers start as PyTorch's do
    assert papers.W.equal(h.Encoder(784, 64, seed=1).W)
    for parameter in (papers.V, papers.c):
        assert 0.99 < parameter.abs().max() * 64**0.5 <= 1
    assert torch.cosine_similarity(papers.V.flatten(), papers.W.flatten(), 0).abs() < 0.1


@pytest.mark.usefixtures("float64")
def test_principal_components_of_both_signs_have_one_threshold():
    x = normal(300, 6) * torch.arange(1, 7) + 7
    model, odd = (benchmark.new_principal_components(x, n, 1.5, 0) for n in (4, 5))
    assert h.l0(model(x)) == pytest.approx(1.5, abs=0.01) and len({*model.b.tolist()}) == 1
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:2]
    close((model.W[:2] @ axes.T).abs(), torch.eye(2).flip(0))
    assert model.W[:2].equal(-model.W[2:]) and odd.W[:2].equal(-odd.W[3:])
    wide = benchmark.new_principal_components(x, 32, 1.5, 0)  # more units than components
    assert wide.W.shape == (12, 6) and h.l0(wide(x)) == pytest.approx(1.5, abs=0.01)
    few = benchmark.new_principal_components(x.float(), 64, 17, 0)  # fewer than shall be active
    assert h.l0(few(x)) == pytest.approx(12, abs=0.01)


def test_rates_fall_at_the_end_and_sgd_starts_slowly():
    for epochs, last in {1: 0, 2: 1, 6: 1, 8: 2, 100: 25}.items():
        assert benchmark.falling_lr_factors(epochs) == [1] * (epochs - last) + [0.1] * last
    assert benchmark.low_start_lr_factors(4) == [0.05, 1, 1, 0.1]
    assert benchmark.low_start_lr_factors(2) == [1, 0.1]
    schedules = [METHODS[name].schedule for name in (PAPER_SGD, PAPER_ADAM, "the paper's model")]
    assert schedules == [benchmark.low_start_lr_factors, benchmark.falling_lr_factors, None]


def test_options_that_are_not_a_methods_are_refused():
    for options in ({"epochs": 3}, {"lr_factors": [1.0]}, {"order_seed": 3}):
        with pytest.raises(ValueError, match="mine: its options may be"):
            Method("mine", benchmark.new_sae, benchmark.l1_sae_losses, options)
    with pytest.raises(ValueError, match="a function of the number of epochs"):
        Method("mine", benchmark.new_sae, benchmark.l1_sae_losses, schedule=[1.0])


# --- Training -------------------------------------------------------------------------------------


def strengths(counts, target_l0):
    """Those that steering gives to a penalty of gradient 3, beside a rest of gradient 12, while so
    many of a hundred units are active."""
    model = torch.nn.Linear(2, 1, bias=False)
    found = []

    def losses(model, x):
        return 3 * model.weight[0, 0], 12 * model.weight[0, 1]

    steered = benchmark.SteeredLoss(losses, target_l0, len(counts))
    for count in counts:
        on = torch.arange(100_000).view(1000, 100) % 1000 < 10 * count  # of 100 units, so many
        model.forward = lambda x, on=on: on.float()
        (gradient,) = torch.autograd.grad(steered(model, None), model.weight)
        share = float(gradient[0, 0]) / 3  # s / (1 + s)
        found.append(share / (1 - share))
        assert found[-1] == pytest.approx(steered.strength, rel=1e-4)
    assert steered.first_strength == 2
    return np.array(found)


def test_a_strength_follows_the_number_of_active_units():
    """It stays where the penalty pulls half as hard as the rest, while their number goes from 20 to
    5 in a sixth of the steps; else every eighth minibatch changes it."""
    as_planned = [5 * 4 ** max(1 - step / 40, 0) for step in range(240)]
    assert_allclose(strengths(as_planned, 5), 2, rtol=0.05)
    power = 2**0.4
    assert_allclose(strengths([10] * 8 + [20], 10)[[0, 7, 8]], [2, 2, 2 * power], 1e-3)
    for count, factor in {5: 1 / power, 90: 3**0.4, 0: 3**-0.4}.items():
        assert strengths([10] * 8 + [count], 10)[8] == pytest.approx(2 * factor, rel=1e-3)


STEERED = {name: METHODS[name] for name in (PAPER_ADAM, PAPER_DECAY, "tied SAE", "L1 SAE")}


@pytest.mark.parametrize("name, scale", [*zip(STEERED, (1, 0.1, 0.1, 10))])
def test_a_model_has_the_l0_asked_for_on_inputs_of_any_scale(name, scale):
    x = scale * DIGITS
    setting = {"n_units": 32, "target_l0": 8, "epochs": 40, "batch_size": 64}
    model = benchmark.train(STEERED[name], 0, x, lr=0.003, **setting)
    assert h.l0(model(x)) == pytest.approx(8, rel=0.05)


def test_what_is_given_to_training_overrides_the_options_of_a_method():
    """But for the size of its minibatches."""
    options = {"lr": 9.0, "batch_size": 64}
    mine = replace(METHODS["tied SAE"], options=options, schedule=lambda epochs: [1.0, 0.3])
    setting = {"n_units": 5, "target_l0": 2, "epochs": 2, "batch_size": 64}
    with_mine = benchmark.train(mine, 1, DIGITS, lr=0.01, **setting | {"batch_size": 32})
    method = METHODS["tied SAE"]
    plain = benchmark.train(method, 1, DIGITS, lr=0.01, lr_factors=[1.0, 0.3], **setting)
    close(with_mine.W, plain.W)
    assert not with_mine.W.allclose(benchmark.train(method, 1, DIGITS, lr=0.01, **setting).W)


@pytest.mark.usefixtures("one_after_the_other")
@pytest.mark.filterwarnings("ignore:.*units are active")  # after one epoch
def test_all_are_trained_and_named():
    compared = [METHODS[name] for name in (COMPONENTS, "TopK SAE", "L1 SAE")]
    models = benchmark.train_all(compared, [3, 4], DIGITS, "title", **SETTING)
    names = [COMPONENTS, "TopK SAE", "TopK SAE", "L1 SAE", "L1 SAE"]
    assert [*models] == [*zip(names, [3, 3, 4, 3, 4])]
    alone = benchmark.train(compared[2], 4, DIGITS, **SETTING)
    close(models["L1 SAE", 4].W, alone.W)
    assert models["L1 SAE", 4].strength == pytest.approx(alone.strength, rel=1e-3)
    table = benchmark.score_all(
        models, lambda model: decoding.decoding_scores(model, DIGITS, DIGITS), "title"
    )
    assert [*table.index] == [*models] and table.index.names == ["method", "seed"]
    assert table.strength.isna().tolist() == [True, True, True, False, False]


@pytest.mark.usefixtures("one_after_the_other")
def test_a_method_that_is_not_steered_well_is_named():
    """It misses its target, or evades its penalty, or its decoder is worse than none."""
    top = METHODS["TopK SAE"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        benchmark.train_all([METHODS[COMPONENTS], top], [3], DIGITS, "title", **SETTING)
    stuck = replace(METHODS["L1 SAE"], name="stuck", options={"lr": 0.0})
    with pytest.warns(UserWarning, match="stuck, seed 3: .* not 4"):
        benchmark.train_all([stuck], [3], DIGITS, "title", **SETTING)
    model = h.Encoder(64, 16)
    for ratio, warned in {2e4: True, 9e3: False, 2e-4: False, 9e-5: True}.items():
        model.first_strength, model.strength = 3.0, 3 * ratio
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            benchmark.warn_of_steering("evasive", model, 4.0, 4)
        assert bool(said) is warned and all("evade" in str(one.message) for one in said)
    with pytest.warns(UserWarning, match="bad, seed 3: .* less than the mean"):
        benchmark.score_all({("bad", 3): model}, lambda _: {"variance explained": -0.1}, "title")


def test_targets_are_missed_by_a_twentieth_of_them():
    missed = [benchmark.misses_target(l0, 17) for l0 in (16.1, 16.2, 17.8, 17.87, math.nan)]
    assert missed == [True, False, False, True, True]


# --- What cannot be used is refused before training -----------------------------------------------


class NotSent(h.SparseAutoencoder):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.lock = threading.Lock()


class Transposed(h.SparseAutoencoder):
    def decode(self, A):
        return A @ self.V.T + self.c


def new_for_test(kind):
    return lambda x, n_units, target_l0, seed: kind(x.shape[1], n_units, None, seed)


def root_of_zero(model, x):  # whose gradient is not finite
    return (0 * model(x)).sum().sqrt() + model(x).sum(), model.W.square().sum()


L1, LOSSES = METHODS["L1 SAE"], benchmark.l1_sae_losses
UNUSABLE = {
    "must be a pair": replace(L1, losses=lambda model, x: sum(LOSSES(model, x))),
    "pair of numbers": replace(L1, losses=lambda model, x: (model(x).sum(1), LOSSES(model, x)[1])),
    "penalty and the rest": replace(L1, losses=lambda model, x: (*LOSSES(model, x), 0)),
    "are not finite": replace(
        L1, losses=lambda model, x: (model(x).sum(), math.nan * model.W[0, 0])
    ),
    "not finite at the start": replace(L1, losses=root_of_zero, steered=False),
    "both need a gradient": replace(L1, losses=lambda model, x: (0, LOSSES(model, x)[1])),
    "need a gradient": replace(
        L1, losses=lambda model, x: (LOSSES(model, x)[0], torch.tensor(1.0))
    ),
    "cannot be pickled": replace(L1, new_model=new_for_test(NotSent)),
    "decode": replace(L1, new_model=new_for_test(Transposed)),
    "must be A V": replace(L1, new_model=new_for_test(Transposed), losses=None),
    "must depend on the model": replace(L1, losses=lambda model, x: (1.0, 2.0), steered=False),
    "depend on the model": replace(
        L1, losses=lambda model, x: (0, model(x).detach().sum()), steered=False
    ),
}


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*_):
        raise AssertionError("training has started")

    monkeypatch.setattr(benchmark, "run_in_parallel", refuse)


@pytest.mark.parametrize("said", UNUSABLE)
def test_a_method_that_cannot_be_used_is_refused_before_training(said, no_training):
    method = replace(UNUSABLE[said], name="mine")
    setting = SETTING | {"n_units": 64}
    with pytest.raises(ValueError, match=f"mine: .*{said}") as error:
        benchmark.train_all([METHODS["TopK SAE"], method], [0], DIGITS, "title", **setting)
    assert "smaller lr" not in str(error.value)
    with pytest.raises(ValueError, match=f"mine: .*{said}"):
        benchmark.scores_by_rate([method], {"mine": [0.1]}, DIGITS, [0], 9, **setting)


@pytest.mark.parametrize("target_l0", [0, 16, -1, 4.5, math.nan])
def test_an_l0_that_is_no_number_of_units_is_refused(target_l0, no_training):
    for name in ("TopK SAE", COMPONENTS):
        with pytest.raises(ValueError, match="whole number, 1 to 15"):
            setting = SETTING | {"target_l0": target_l0}
            benchmark.train_all([METHODS[name]], [0], DIGITS, "title", **setting)


def test_names_and_seeds_that_stand_twice_are_refused(no_training):
    top, mine = METHODS["TopK SAE"], replace(METHODS["L1 SAE"], name="TopK SAE")
    for methods, beside in (([top, mine], []), ([mine], benchmark.METHODS)):
        with pytest.raises(ValueError, match="a name of its own"):
            benchmark.train_all(methods, [0], DIGITS, "title", beside=beside, **SETTING)
    for seeds in ([], [0, 1, 0]):
        with pytest.raises(ValueError, match="each once"):
            benchmark.train_all([top], seeds, DIGITS, "title", **SETTING)


# --- How learning rates are chosen ----------------------------------------------------------------


@pytest.mark.usefixtures("one_after_the_other")
def test_rates_are_tried_on_rows_that_were_not_trained_on():
    """A rate at which training diverges has a row, without numbers."""
    top = METHODS["TopK SAE"]
    rates = {"TopK SAE": [0.01, 1e20]}
    table = benchmark.scores_by_rate([top], rates, DIGITS, [0], 300, **SETTING)
    assert [*table.index] == [("TopK SAE", 0.01, 0), ("TopK SAE", 1e20, 0)]
    model = benchmark.train(top, 0, DIGITS[:-300], lr=0.01, **SETTING)
    expected = decoding.decoding_scores(model, DIGITS[:-300], DIGITS[-300:])
    found = table.iloc[0]
    assert found["variance explained"] == pytest.approx(expected["variance explained"], abs=0.01)
    assert table.iloc[1].isna().all()


def rates_table(rows):
    columns = ["method", "rate", "seed", "variance explained", "dead units", "L0"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:3])


def test_the_best_rate_is_chosen_of_those_that_can_be_used():
    nothing = [math.nan] * 3
    table = rates_table(
        [
            (PAPER_ADAM, 0.001, 0, 50, 1, 17),
            (PAPER_ADAM, 0.002, 0, 55, 2, 17),  # kills more than the paper's rate
            (PAPER_SGD, 0.1, 0, 60.95, 1, 17),  # within a tenth of the best
            (PAPER_SGD, 0.2, 0, 61, 0, 17),
            (PAPER_SGD, 0.4, 0, 62, 2, 17),
            ("SAE", 0.001, 0, 70, 0, 17),
            ("SAE", 0.001, 1, 74, 0, 17),
            ("SAE", 0.002, 0, 99, 0, 17),  # the other seed diverged
            ("SAE", 0.002, 1, *nothing),
            ("SAE", 0.004, 0, 80, 0, 18.5),  # misses 17, if only for one seed
            ("SAE", 0.004, 1, 80, 0, 15.5),
            ("SAE", 0.008, 0, 75, 3, 17),
            ("SAE", 0.008, 1, 71, 3, 17),
        ]
    )
    expected = {PAPER_ADAM: 0.001, PAPER_SGD: 0.1, "SAE": 0.008}
    assert benchmark.choose_rates(table, 17) == expected


def test_a_method_without_a_rate_that_can_be_used_is_left_out():
    table = rates_table([(PAPER_ADAM, 0.001, 0, 50, 1, 30), (PAPER_SGD, 0.1, 0, 60, 1, 17)])
    assert benchmark.choose_rates(table, 17) == {PAPER_SGD: 0.1}


# --- Figures --------------------------------------------------------------------------------------


def scores(names):
    """Two seeds of each: numbers that all differ."""
    index = pd.MultiIndex.from_product([names, [0, 1]], names=["method", "seed"])
    columns = ["parameters", "L0", "MSE", "classifier", figures.OWN, figures.BEST]
    numbers = np.arange(len(index) * 6).reshape(-1, 6) / len(index) + [1e5, 17, 0.1, 80, 40, 60]
    return pd.DataFrame(numbers, index, columns)


def drawn(axis):
    return {(round(x, 6), y) for line in axis.lines for x, y in line.get_xydata()}


def test_the_benchmark_is_drawn_with_a_dot_for_each_seed():
    names = ["the paper's model", "the paper's SAE", "mine"]
    table = scores(names)
    axes = figures.draw_benchmark(table, pixels=81.0).axes
    assert [text.get_text() for text in axes[0].get_yticklabels()] == names
    for axis, column in zip(axes, ["parameters", "L0", "MSE", "classifier"]):
        dots = {(round(x, 6), i // 2) for i, x in enumerate(table[column])}
        assert dots <= drawn(axis)
        low, high = axis.get_xlim()
        assert low < table[column].min() and table[column].max() < high
    assert 81.0 in {x for x, _ in drawn(axes[3])}


def test_methods_have_their_numbers_and_one_that_misses_its_target_is_marked():
    table = scores(["a", "b"])
    table["L0"] = [17, 17.2, 23, 23]
    a, b = figures.draw_code_or_decoder(table, 17, pixels=81.0).axes
    assert [text.get_text() for text in a.get_yticklabels()] == ["a", "b (23.0 active)"]
    for axis, column in ((a, figures.OWN), (a, figures.BEST), (b, "classifier")):
        assert {(round(x, 6), i // 2) for i, x in enumerate(table[column])} <= drawn(axis)
    means = table.groupby("method").mean()
    assert [text.get_text() for text in a.texts][:2] == [
        f"{means[c]['a']:.0f}" for c in (figures.OWN, figures.BEST)
    ]
    assert [text.get_text() for text in b.texts][:2] == [f"{n:.1f}" for n in means["classifier"]]


def test_the_gap_of_the_papers_loss_is_divided_at_the_best_decoder():
    """The code's part ends at the SAE that explains least; beyond it, there is none."""
    table = scores([PAPER_ADAM, "L1 SAE", "TopK SAE"])
    for best, parts in {60: [(40, 60), (60, 70)], 75: [(40, 75)]}.items():
        table[figures.OWN] = [39, 41, 70, 70, 80, 80]
        table[figures.BEST] = [best, best, 70, 70, 80, 80]
        a, _ = figures.draw_code_or_decoder(table, 17).axes
        spans = [(t.xyann[0], t.xy[0]) for t in a.texts if t.arrow_patch]
        assert [tuple(sorted(span)) for span in spans] == parts
        said = [text.get_text() for text in a.texts]
        assert [name in said for name in ("decoder", "code")] == [True, len(parts) == 2]
        band = a.patches[0].get_extents().transformed(a.transData.inverted())
        assert band.x0 == pytest.approx(70) and band.x1 == pytest.approx(80)


def test_decoded_digits_stand_below_each_other():
    rows = {name: (DIGITS[:10], "17", "47%") for name in ("one", "two", "three")}
    fig = figures.draw_decoded(DIGITS[:10], rows, framed=4, same_code=(1, 2))
    heights = [axis.get_position().y0 for axis in fig.axes]
    assert len(heights) == 4 and heights == sorted(heights, reverse=True)
    said = [text.get_text() for text in fig.texts]
    assert said.count("17") == said.count("47%") == 3 and "same code" in said
