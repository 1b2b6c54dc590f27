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
    train, test = language.train_test_sequences(documents, 40 * C)
    expected = [i for i in range(30) if i % 10 != 9 and i != 3 for _ in range(2)]
    assert train.tolist() == [[i] * C for i in expected[:36]]
    assert test.tolist() == [[9] * C] * 2 + [[19] * C] * 2
    for n_tokens in (20 * C - 1, 60 * C):  # too few, and more than there are
        with pytest.raises(ValueError, match=str(n_tokens)):
            language.train_test_sequences(documents, n_tokens)
    counted = [list(range(2 * C + 5)) for _ in range(30)]
    sequences = language.train_test_sequences(counted, 20 * C)[0]
    assert sequences[:2].flatten().tolist() == counted[0][: 2 * C]


def test_rows_are_replaced_in_their_scale_and_massive_ones_stay():
    rows = torch.tensor([[3.0, 4], [6, 8], [30, 40]])
    replaced = language.scaled_replacement(lambda x: x + 1, scale=2, max_norm=10)(rows)
    assert replaced.tolist() == [[5, 6], [8, 10], [30, 40]]


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
def test_rows_are_shuffled_in_units_of_their_deviation_and_without_massive_ones(
    folder, monkeypatch
):
    monkeypatch.setattr(language, "MASSIVE", 1.2)
    x, x_test, loss = language.prepare_benchmark(str(folder), 2560)
    tokenizer, network = language.load_network(str(folder))
    mlp = language.choose_mlp(network)
    texts = (folder.parent / "data/corpus.txt").read_text("utf-8").split("<|endoftext|>")
    sequences = language.train_test_sequences(
        [tokenizer(text)["input_ids"] for text in texts], 2560
    )
    rows, test_rows = (language.read_activations(network, mlp, part) for part in sequences)
    limit = 1.2 * rows.norm(dim=1).median()
    kept, test_kept = (part[part.norm(dim=1) <= limit] for part in (rows, test_rows))
    scale = kept.std()
    assert len(kept) < len(rows) and len(test_kept) < len(test_rows)
    torch.testing.assert_close(x.sort(0).values, kept.sort(0).values / scale)
    assert not x.allclose(kept / scale)
    torch.testing.assert_close(x_test, test_kept / scale)

    def replace(rows):
        usual = rows.norm(dim=1, keepdim=True) <= limit
        return torch.where(usual, 2 * rows + scale, rows)

    expected = language.loss_if_replaced(replace, network, mlp, sequences[1])
    assert loss(lambda rows: 2 * rows + 1) == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def models():
    """Three encoders of x: one that loses nothing, one that is dead, and one in between."""
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0)) + 2
    model = h.Encoder(4, 8, [0, 0, 0]).requires_grad_(False)
    model.W[0], model.b[0] = torch.cat([torch.eye(4), -torch.eye(4)]), 0
    model.b[1] = -100
    return model, x


def test_the_loss_recovered_is_0_of_the_mean_and_100_of_the_rows(models, monkeypatch):
    """Of a loss that is the squared error, it is the variance explained."""
    model, x = models

    def loss(replacement):
        return 7 + 3 * float((replacement(x) - x).square().mean())

    with_rows, with_mean = loss(lambda rows: rows), loss(lambda rows: x.mean(0).expand_as(rows))
    found = language.measure_loss_recovered(model, x, loss, with_rows, with_mean).to_numpy()
    assert found[:2, 0] == pytest.approx([100, 0], abs=1e-2)
    explained = common.measure_stack(model, x, x)[["own decoder", "best decoder"]]
    assert found == pytest.approx(explained.to_numpy(), abs=1e-2)
    monkeypatch.setattr(language, "METHODS", {})
    monkeypatch.setattr(language, "ACTIVE", [1, 2])
    table = language.compare_methods(x, x, loss)
    for recovered, decoder in (("", "own"), (", best", "best")):
        pd.testing.assert_series_equal(
            table[f"loss recovered{recovered}"],
            table[f"{decoder} decoder"],
            check_names=False,
            atol=1e-2,
        )
    assert (table["loss with mean"] == with_mean).all()
    assert (table["loss with rows"] == with_rows).all()


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_all_methods_are_compared_and_rates_are_searched(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(language, "EPOCHS", 1)
    options = ["--model", str(folder), "--tokens", "2560", "--figures", str(tmp_path / "new/out")]
    for more in ([], ["--tune"]):
        monkeypatch.setattr("sys.argv", ["language.py", *options, *more])
        language.main()
    table = pd.read_csv(tmp_path / "new/out/language.csv").set_index(["method", "strength"])
    for name, (_, strengths, _) in language.METHODS.items():
        assert table.loc[name].index.tolist() == strengths * len(language.SEEDS)
    for name in ("TopK SAE", "principal components"):
        assert table.loc[name]["L0"][:3].tolist() == pytest.approx([6, 12, 24], rel=0.1)
    assert not table.isna().any(axis=None) and table["best decoder"].between(0, 100).all()
    searched = pd.read_csv(tmp_path / "new/out/tuning_language.csv")
    rates = searched.groupby("method")["lr"].median()
    assert rates.to_dict() == {name: lr for name, (_, _, lr) in language.METHODS.items()}


def test_rates_are_searched_on_rows_held_out_from_training(monkeypatch):
    seen, x = [], torch.arange(100.0).view(50, 2)

    def search(methods, rates, x, x_held_out, **setting):
        seen.append((x, x_held_out))
        return pd.DataFrame({"method": [*methods]})

    monkeypatch.setattr(language, "sweep_rates", search)
    assert language.sweep_near_rates(x)["method"].tolist() == [*language.METHODS]
    for part, held_out in seen:
        assert torch.equal(part, x[:25]) and torch.equal(held_out, x[45:])


def test_rates_are_those_that_the_search_chose():
    search = pd.read_csv(ROOT / "figures/tuning_language.csv")
    best = common.score_rates(search, 576 / 36).idxmax(axis=1)
    assert best.to_dict() == {name: lr for name, (_, _, lr) in language.METHODS.items()}


def test_help_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["language.py", "--help"])
    with pytest.raises(SystemExit) as exit:
        language.main()
    assert exit.value.code == 0 and not [*tmp_path.iterdir()]
