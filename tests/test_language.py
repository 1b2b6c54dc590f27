"""The benchmark on tiny Llama and GPT-2 networks with random weights: nothing is downloaded."""

from unittest.mock import Mock

import pytest
import torch
from sklearn.decomposition import PCA

from lab import language, methods, record

transformers = pytest.importorskip("transformers")
DOCUMENTS = [[(n * i * i + 7 * i) % 61 for i in range(n)] for n in range(2, 300, 7)]


@pytest.fixture(params=["llama", "gpt2"])
def folder(request, tmp_path, monkeypatch):
    """A network in half precision and a tokenizer, of bytes; results are written beside them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 32, "vocab_size": 400, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 4, "initializer_range": 0.2}
    config = transformers.AutoConfig.for_model(request.param, **sizes)
    network = transformers.AutoModelForCausalLM.from_config(config).half()
    for part in (network, transformers.ByT5Tokenizer()):
        part.save_pretrained(tmp_path / request.param)
    monkeypatch.setattr(language, "load_documents", lambda: [*map(str, DOCUMENTS)])
    monkeypatch.setattr(record, "ROOT", tmp_path)
    return tmp_path / request.param


@torch.no_grad()
@pytest.mark.parametrize("kind", ["residual", "mlp"])
def test_components_and_loss_recovered_are_those_of_plain_loops(folder, kind, monkeypatch):
    monkeypatch.setattr(language, "MAX_NORM", 1.1)
    network = language.load_network(str(folder))[1].double()
    site, (train, test) = language.find_site(network, kind, 3)[0], language.split(DOCUMENTS, 1500)
    assert ("MLP" in type(site).__name__) == (kind == "mlp")
    data = language.load_activations(network, site, train, test)
    x, mean = data.x_test - data.x.mean(0), data.x.mean(0)
    if kind == "residual":
        outputs = (network(torch.tensor([i]), output_hidden_states=True) for i in train + test)
        rows = torch.cat([output.hidden_states[3][0, 1:] for output in outputs])
        kept = rows.norm(dim=1) <= 1.1 * rows[:1350].norm(dim=1).median()
        pca = PCA(24).fit(rows[:1350][kept[:1350]])
        want = pca.transform(rows[1350:][kept[1350:]]) / pca.explained_variance_.mean() ** 0.5
        assert len(data.x) == kept[:1350].sum() < 1350
        assert (x @ x.T).numpy() == pytest.approx(want @ want.T)  # signs are anyone's

    def nats_per_token(sae):
        def hook(_, inputs, output):
            X = (output[0] if isinstance(output, tuple) else output)[0, 1:]
            for row in [row for row in X if row.norm() <= data.limit]:
                x = row @ data.axes
                row += torch.linalg.lstsq(data.axes.T, (sae(x) - x)[:, None]).solution[:, 0]

        with site.register_forward_hook(hook):
            log_p = [network(torch.tensor([ids])).logits[0].log_softmax(1) for ids in test]
        nats = [-p[i, ids[i + 1]] for p, ids in zip(log_p, test) for i in range(1, len(ids) - 1)]
        return float(sum(nats) / len(nats))

    full, none, half = map(nats_per_token, (lambda x: x, lambda x: mean, lambda x: x / 2))
    (recovered,), cost = language.loss_recovered(network, site, test, data, [lambda x: x / 2])
    assert (cost, recovered) == pytest.approx((none - full, 100 * (none - half) / cost), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*units are active")  # of so few steps
def test_the_run_and_its_record(folder, monkeypatch):
    monkeypatch.setattr(language, "train_all", Mock(wraps=language.train_all))
    site, output = {"llama": "residual", "gpt2": "mlp"}[folder.name], folder.parent / "build"
    language.main(f"--model {folder} --site {site} --tokens 1000 --seeds 1".split())
    content = record.read("language", output / "language")
    table = content["tables"]["results"]
    assert [*table.method] == [method.name for method in methods.METHODS]
    assert table.notna().all(axis=None) and (output / "language/3d_language_model.png").exists()
    assert table.set_index("method").l0["TopK SAE"] == content["parameters"]["active units"] == 6
    assert language.train_all.call_args.kwargs["batch_size"] == 2 * 48
    for option in ("layer 0", "layer 5", "tokens 0", "tokens 80", "tokens 100000", "model x"):
        with pytest.raises(SystemExit, match=f"--{option.split()[0]}"):
            language.main(f"--model {folder} --{option}".split())


def test_training_and_test_are_of_different_documents():
    train, test = language.split([[i] * 300 for i in range(40)], 4000)
    assert {ids[0] % 10 for ids in test} == {9} and 9 not in {ids[0] % 10 for ids in train}
    assert max(map(len, train + test)) == 128  # of which the first does not count
    assert [sum(len(ids) - 1 for ids in part) for part in (train, test)] == [3600, 400]
