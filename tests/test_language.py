"""lab/language.py on made-up data, and all of it on a tiny GPT-2 with random weights."""

import json
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import helpers as h
from lab import criteria, language, network, record, tables, tuning

N_WORDS = 60


@pytest.fixture
def data():
    x = torch.randn(720, 8, generator=torch.Generator().manual_seed(0)) ** 3
    x = x - x.mean(0)
    return network.Activations(x, x, torch.eye(8), torch.zeros(8), 9.0, 1.0)


def test_competition_is_removed_where_the_name_says_so(data):
    chosen, model = language.chosen_methods(data), h.Encoder(8, 16)
    E, kappa, lam = model(data.x), data.x.var(0).sum() / 16, 0.02
    for name, penalty in zip(criteria.LANGUAGE_COMPETITION, (h.lse_loss, h.pooled_lse_loss)):
        want = h.revised_loss(E, model.W, lam, kappa, penalty=penalty)
        assert_allclose(chosen[name].loss(model, data.x, lam=lam).detach(), want.detach(), 1e-5)
        assert chosen[name].settings == chosen["the revised loss"].settings


@pytest.mark.filterwarnings("ignore:.*do not enclose")
def test_search_tries_ways_by_what_they_explain_and_rates_by_loss(data, tmp_path, monkeypatch):
    monkeypatch.setattr(language, "EPOCHS", 4)
    monkeypatch.setattr(language, "WAYS", {"Adam": (0.02,), "SGD": (0.1,)})
    monkeypatch.setattr(language, "L0", 1)
    monkeypatch.setattr(language, "N_BEST", 1)
    monkeypatch.setattr(tuning, "RATES", (1e-5, 0.01))
    record.write_json(tmp_path / "a.json", language.search(data))
    found = json.loads((tmp_path / "a.json").read_text())
    told = {"SGD 0.1, slow start, centred", "SGD 0.1, slow start, raw"}
    assert {row["how"] for row in found["all ways"]} == told | {
        "Adam 0.02, centred",
        "Adam 0.02, raw",
    }
    explained = [row["explained"] or 0 for row in found["all ways"]]
    assert explained == sorted(explained, reverse=True) and explained[0] > 0
    assert [row["how"] for row in found["best ways"]] == [found["all ways"][0]["how"]]
    for slow, fast in found["rates"].values():
        assert slow[0] == 1e-5 and fast[0] == 0.01 and fast[1] < slow[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A network in half precision and a tokenizer of words w0, w1, ... as save_pretrained leaves
    them."""
    transformers = pytest.importorskip(
        "transformers", reason="pip install -r requirements-language.txt"
    )
    tokenizers = pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    sizes = {"n_embd": 96, "n_layer": 4, "n_head": 4, "n_positions": 128, "n_inner": 32}
    config = transformers.GPT2Config(vocab_size=N_WORDS, initializer_range=0.2, **sizes)
    words = {f"w{i}": i for i in range(N_WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    for part in (transformers.GPT2LMHeadModel(config).half(), fast):
        part.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*words], size=150)) for _ in range(20)]
    monkeypatch.setattr(language, "load_documents", lambda: texts)
    monkeypatch.setattr(language, "EPOCHS", 1)
    return tmp_path / "model"


@pytest.mark.filterwarnings("ignore:.*do not enclose")
def test_the_run_and_its_record(folder, tmp_path):
    command = f"--model {folder} --site mlp --tokens 2000 --seeds 0 1 --output {tmp_path}"
    language.main(command.split())
    run = json.loads((tmp_path / "language.json").read_text())
    expected = {"TOKENS": 2000, "SEEDS": [0, 1], "MODEL": str(folder), "SITE": "mlp", "LAYER": 2}
    assert run["parameters"] | expected == run["parameters"]
    sizes = {"tokens": {"train": 1800, "test": 200}, "components": 24, "units": 48}
    assert run | sizes | {"batch_size": 96, "steps": 1800 // 96} == run
    # It is not SmolLM2: settings are wider, of half the smaller and twice the larger too
    (a, b), _ = language.SETTINGS["L1 SAE"]
    assert run["settings"]["L1 SAE"] == [min(a, b) / 2, a, b, 2 * max(a, b)]
    assert run["settings"]["TopK SAE"] == [*language.SETTINGS["TopK SAE"][0]]
    assert len(run["table"]) == 2 * sum(map(len, run["settings"].values()))
    assert all(row["recovered"] is not None for row in run["table"])
    top_k = [(n["quantity"], len(n["seeds"])) for n in run["numbers"] if n["method"] == "TopK SAE"]
    assert top_k == [*zip(language.TOLERANCES, (2, 2, 2, 1))]  # there is one pair of two seeds
    # What notebook 3 reads of it
    table = tables.language(run)
    assert list(table.index) == [*language.SETTINGS] and "±" in table.values[-1, 0]
    found = [(row["method"], row["seed"]) for row in run["competition"]]
    assert found == [(name, seed) for name in criteria.LANGUAGE_COMPETITION for seed in (0, 1)]
    assert len({row["spread"] for row in run["competition"]}) == 4  # each of its own model
    assert run["mean_ablation"] is not None


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        ("--layer 5", 1, "--layer is from 1 to 4, the layers of the network; got 5"),
        ("--tokens 100000", 1, "the corpus lacks .* training and .* test tokens"),
        ("--model {}-not", 1, "give that of one on the hub of transformers .* or a folder saved"),
        ("--output figures", 2, "give another folder, --output FOLDER"),
        ("--model= --layer 3 --output figures", 2, "give another folder"),
        ("--model= --tokens 1000 --output figures", 2, "the full record of SmolLM2"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, status, said, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(network, "load_activations", None)  # it must not come so far
    command = f"--model {folder} --output {tmp_path} {arguments.format(folder)}"
    with pytest.raises(SystemExit) as ended:
        language.main(command.split())
    assert ended.value.code == status and re.search(said, capsys.readouterr().err)
