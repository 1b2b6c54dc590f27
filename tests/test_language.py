"""questions/language.py on tiny Llama and GPT-2 networks with random weights, not downloaded."""

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
import transformers
from conftest import ROOT

import common
import helpers as h
import language


@pytest.fixture(params=["llama", "gpt2"])
def folder(request, tmp_path, monkeypatch):
    """That of a network in half precision, and of a tokenizer whose words are letters. The corpus
    is 40 documents of random letters."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 72, "intermediate_size": 32, "vocab_size": 64, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 4, "initializer_range": 0.2}
    config = transformers.AutoConfig.for_model(request.param, **sizes)
    network = transformers.AutoModelForCausalLM.from_config(config).half()
    words = {letter: i for i, letter in enumerate("?abcdefghijklmnopqrstuvwxyz")}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    for part in (network, tokenizer):
        part.save_pretrained(tmp_path / request.param)
    (tmp_path / "data").mkdir()
    letters = np.random.default_rng(0).integers(97, 123, (40, 200), np.uint8)
    text = "<|endoftext|>".join(row.tobytes().decode() for row in letters)
    (tmp_path / "data/corpus.txt").write_text(text, "utf-8")
    monkeypatch.setattr(language, "__file__", str(tmp_path / "questions/language.py"))
    return tmp_path / request.param


@torch.no_grad()
def test_activations_and_losses_are_those_of_plain_loops(folder):
    network = language.load_network(str(folder))[1].double()
    mlp = language.choose_mlp(network)
    sequences = torch.arange(10 * language.CONTEXT).view(10, -1) ** 2 % 61
    x = language.read_activations(network, mlp, sequences)
    seen = []
    with mlp.register_forward_hook(lambda mlp, inputs, output: seen.append(output[0, 1:])):
        for ids in sequences:
            network(ids[None])
    torch.testing.assert_close(x, torch.cat(seen))

    def plain_loss(replace):
        def hook(mlp, inputs, output):
            output[0, 1:] = replace(output[0, 1:])

        losses = []
        with mlp.register_forward_hook(hook):
            for ids in sequences:
                log_p = network(ids[None]).logits[0].log_softmax(1)
                losses += [-log_p[i, ids[i + 1]] for i in range(1, len(ids) - 1)]
        return float(sum(losses) / len(losses))

    for replace in (lambda x: x, lambda x: 10 * x.roll(1, 1)):
        found = language.loss_if_replaced(replace, network, mlp, sequences)
        assert found == pytest.approx(plain_loss(replace), rel=1e-9)
    assert not mlp._forward_hooks


def test_the_mlp_is_that_at_two_fifths_of_the_layers():
    layers = [torch.nn.ModuleDict({"mlp": torch.nn.ReLU()}) for _ in range(30)]
    assert language.choose_mlp(torch.nn.Sequential(*layers)) is layers[11]["mlp"]
    assert language.choose_mlp(torch.nn.Sequential(*layers[:5])) is layers[1]["mlp"]
    with pytest.raises(ValueError, match="mlp"):
        language.choose_mlp(torch.nn.Sequential(torch.nn.ReLU()))


def test_every_tenth_document_is_for_the_test():
    C = language.CONTEXT
    documents = [[i] * (2 * C + 5) for i in range(30)]
    documents[3] = [99] * (C - 1)  # too short for a sequence
    train, test = language.train_test_sequences(documents, 50 * C)
    expected = [i for i in range(30) if i % 10 != 9 and i != 3 for _ in range(2)]
    assert train.tolist() == [[i] * C for i in expected[:45]]
    assert test.tolist() == [[i] * C for i in (9, 9, 19, 19, 29)]
    for n_tokens in (20 * C - 1, 60 * C):  # too few, and more than there are
        with pytest.raises(ValueError, match=str(n_tokens)):
            language.train_test_sequences(documents, n_tokens)
    counted = [list(range(2 * C + 5)) for _ in range(30)]
    sequences = language.train_test_sequences(counted, 20 * C)[0]
    assert sequences[:2].flatten().tolist() == counted[0][: 2 * C]


def test_rows_are_replaced_in_their_units_and_massive_ones_stay():
    rows = torch.tensor([[3.0, 4], [6, 8], [30, 40]])
    replaced = language.scaled_replacement(lambda x: x + 1, scale=2, max_norm=10)(rows)
    assert replaced.tolist() == [[5, 6], [8, 10], [30, 40]]


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
def test_rows_are_in_units_of_their_deviation_and_without_massive_ones(folder, monkeypatch):
    monkeypatch.setattr(language, "MASSIVE", 1.2)
    x, x_test, loss = language.prepare_benchmark(str(folder), 2560)
    tokenizer, network = language.load_network(str(folder))
    mlp = language.choose_mlp(network)
    texts = (folder.parent / "data/corpus.txt").read_text("utf-8").split("<|endoftext|>")
    ids = [tokenizer(text)["input_ids"] for text in texts]
    sequences = language.train_test_sequences(ids, 2560)
    rows, test_rows = (language.read_activations(network, mlp, part) for part in sequences)
    limit = 1.2 * rows.norm(dim=1).median()
    kept, test_kept = (part[part.norm(dim=1) <= limit] for part in (rows, test_rows))
    assert len(kept) < len(rows) and len(test_kept) < len(test_rows)
    torch.testing.assert_close(x.sort(0).values, (kept / kept.std()).sort(0).values)
    torch.testing.assert_close(x_test, test_kept / kept.std())

    def replace(rows):
        usual = rows.norm(dim=1, keepdim=True) <= limit
        return torch.where(usual, 2 * rows + kept.std(), rows)

    expected = language.loss_if_replaced(replace, network, mlp, sequences[1])
    assert loss(lambda rows: 2 * rows + 1) == pytest.approx(expected, rel=1e-5)


def test_the_loss_recovered_is_0_of_the_mean_and_100_of_the_rows():
    """Of a loss that is the squared error, it is the variance explained."""
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
    x += 2
    models = [h.Encoder(4, 8).requires_grad_(False) for _ in range(3)]
    models[0].weight[:], models[0].bias[:] = torch.cat([torch.eye(4), -torch.eye(4)]), 0
    models[1].bias[:] = -100  # dead

    def loss(replacement):
        return 7 + 3 * float((replacement(x) - x).square().mean())

    with_rows, with_mean = loss(lambda rows: rows), loss(lambda rows: 0 * rows + x.mean(0))
    cases = [(models[0], 0, 100), (models[1], 0, 0), (models[2], 0, None), (models[2], 2, None)]
    for model, less, own in cases:
        found = language.loss_recovered(model, x, less, loss, with_rows, with_mean)
        explained = common.measure(model, x - less, x - less)
        assert found["loss recovered"] == pytest.approx(explained["own decoder"], abs=1e-2)
        assert found["loss recovered, best"] == pytest.approx(explained["best decoder"], abs=1e-2)
        assert own is None or found["loss recovered"] == pytest.approx(own, abs=1e-2)


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_all_methods_are_compared_and_rates_are_searched(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(language, "EPOCHS", 1)
    options = ["--model", str(folder), "--tokens", "2560", "--figures", str(tmp_path / "new/out")]
    for more in ([], ["--tune"]):
        monkeypatch.setattr("sys.argv", ["language.py", *options, *more])
        language.main()
    table = pd.read_csv(tmp_path / "new/out/language.csv").set_index(["method", "strength"])
    for name, (_, _, strengths, _) in language.METHODS.items():
        assert table.loc[name].index.tolist() == strengths * len(language.SEEDS)
    top_k = table.loc["TopK SAE"].groupby("strength")["L0"].mean()
    assert top_k[:3].tolist() == pytest.approx([6, 12, 24], rel=0.1)
    assert table.columns[0] == "seed"
    assert not table.isna().any(axis=None) and table["best decoder"].between(0, 100).all()
    searched = pd.read_csv(tmp_path / "new/out/tuning_language.csv")
    new, loss, strengths, lr = language.METHODS["tied SAE"]
    x = language.prepare_benchmark(str(folder), 2560)[0]
    half, held_out = (x - x.mean(0))[: len(x) // 2], (x - x.mean(0))[-(len(x) // 10) :]
    models = common.train(new, loss, half, 72, strengths, [0], lr, 1, 144)
    assert models[strengths[0], 0].V is models[strengths[0], 0].weight
    expected = common.measure(models[strengths[0], 0], half, held_out)
    found = searched[(searched["method"] == "tied SAE") & (searched["lr"] == lr)].iloc[0]
    assert found[[*expected]].to_dict() == pytest.approx(expected, rel=1e-3)
    rates = searched.groupby("method")["lr"].median()
    assert rates.to_dict() == {name: lr for name, (*_, lr) in language.METHODS.items()}


def test_a_model_without_an_mlp_is_an_error_that_says_what_is_needed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["language.py", "--model", "folder"])
    monkeypatch.setattr(language, "load_network", lambda name: (None, torch.nn.Linear(2, 2)))
    with pytest.raises(SystemExit):
        language.main()
    assert "need a module `mlp`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["language.csv", "tuning_language.csv"])
def test_the_record_has_the_strengths_of_the_methods(name):
    strengths = pd.read_csv(ROOT / "figures" / name).groupby("method")["strength"].unique()
    assert strengths.map(list).to_dict() == {n: m[2] for n, m in language.METHODS.items()}


def test_rates_are_those_that_the_search_chose():
    search = pd.read_csv(ROOT / "figures/tuning_language.csv")
    best = common.score_rates(search, 576 / 36).idxmax(axis=1)
    assert best.to_dict() == {name: lr for name, (*_, lr) in language.METHODS.items()}
