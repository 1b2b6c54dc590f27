"""The benchmark on tiny Llama and GPT-2 networks with random weights: nothing is downloaded."""

import json
import re

import pytest
import torch

import helpers as h
from lab import ROOT, benchmark, decoding, language, record

transformers = pytest.importorskip("transformers")
TEXTS = [chr(97 + n % 26) * 7 + " ".join(str(n * i * i % 97) for i in range(90)) for n in range(40)]


@pytest.fixture(params=["llama", "gpt2"])
def folder(request, tmp_path, monkeypatch):
    """A network in half precision and a tokenizer, of bytes; results are written beside them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 72, "intermediate_size": 32, "vocab_size": 400, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 4, "initializer_range": 0.2}
    config = transformers.AutoConfig.for_model(request.param, **sizes)
    network = transformers.AutoModelForCausalLM.from_config(config).half()
    for part in (network, transformers.ByT5Tokenizer()):
        part.save_pretrained(tmp_path / request.param)
    monkeypatch.setattr(language, "load_documents", lambda: TEXTS)
    monkeypatch.setattr(language, "EPOCHS", 1)
    monkeypatch.setenv("OUTPUT", str(tmp_path / "out"))
    return tmp_path / request.param


@torch.no_grad()
def test_activations_and_losses_are_those_of_plain_loops(folder):
    network = language.load_network(str(folder))[1].double()
    mlp, layer = language.find_mlp(network)
    assert layer == 2 and "MLP" in type(mlp).__name__
    sequences = torch.arange(20 * language.CONTEXT).view(20, -1) ** 2 % 61
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

    for replace in (lambda x: x, lambda x: x / 2):
        loss = language.loss_with(replace, network, mlp, sequences)
        assert loss == pytest.approx(plain_loss(replace), rel=1e-3)


def test_rows_are_shuffled_scaled_and_without_massive_ones():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    massive = 11 * x.norm(dim=1).median() / x[:1].norm()
    x_all, x_test = torch.cat([x, massive * x[:1]]), torch.cat([x[:5], massive * x[:1]])
    rows, test_rows, scale, limit = language.prepare_rows(x_all, x_test)
    torch.testing.assert_close(rows.sort(0).values, (x / x.std()).sort(0).values)
    assert not rows.allclose(x / x.std()) and scale == x.std()
    torch.testing.assert_close(test_rows, x[:5] / x.std())
    assert 9 < limit / x.norm(dim=1).median() < 11


def test_the_loss_recovered_is_between_that_of_the_mean_and_that_of_the_rows():
    x = torch.rand(90, 4, generator=torch.Generator().manual_seed(0))
    models = {("a", seed): h.Encoder(4, 3, seed=seed).requires_grad_(False) for seed in (1, 2)}

    def loss(replacement):
        return 7 + 3 * float((replacement(x) - x).square().mean())

    recovered, replaced = language.loss_recovered(models, x, loss)
    variance = 3 * float(x.var(0, correction=0).mean())
    assert replaced["loss of a token"].tolist() == pytest.approx([7, 7 + variance])
    assert [*recovered.index] == [*models] and recovered.index.names == ["method", "seed"]
    for key, model in models.items():
        scores = decoding.decoding_scores(model, x, x)  # of the same squared error
        for which in ("", " by the best decoder"):
            found = recovered[f"loss recovered{which}"][key]
            assert found == pytest.approx(scores[f"variance explained{which}"], abs=0.01)


def test_the_mlp_is_at_two_fifths_of_the_network():
    layers = [torch.nn.ModuleDict({"mlp": torch.nn.ReLU()}) for _ in range(30)]
    assert language.find_mlp(torch.nn.Sequential(*layers)) == (layers[11]["mlp"], 12)


def test_rows_are_replaced_in_their_scale_and_massive_ones_stay():
    rows = torch.tensor([[3.0, 4], [6, 8], [30, 40]])
    replaced = language.in_scale(lambda x: x + 1, scale=2, limit=10)(rows)
    assert replaced.tolist() == [[5, 6], [8, 10], [30, 40]]


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*units are active", "ignore:.*less than the mean")
def test_all_methods_are_compared_and_saved(folder, capsys):
    arguments = ["--model", str(folder), "--tokens", "4000", "--seeds", "0"]
    language.main(arguments)
    saved = json.loads((folder.parent / "out/language.json").read_text("utf-8"))
    assert saved["parameters"]["SEEDS"] == [0] and saved["parameters"]["UNITS"] == 72
    tables = record.read_tables(saved)
    results = tables["results"]
    names = results.index.get_level_values("method")
    assert {*language.CHOSEN_RATES} <= {*names} and {*tables["network"].columns} == {
        "loss of a token"
    }
    assert results["dead units"].between(0, 72).all()
    for column in ("variance explained", "loss recovered"):
        assert (
            results[column].notna().all() and results[f"{column} by the best decoder"].notna().all()
        )
    assert (folder.parent / "out/3c_language_model.png").exists()
    language.main([*arguments, "--tune"])
    assert "chosen" in capsys.readouterr().out


def test_each_method_has_the_rate_chosen_for_it(monkeypatch):
    asked = []

    def stop(methods, *_, **__):
        asked.extend(methods)
        raise KeyboardInterrupt

    monkeypatch.setattr(language.benchmark, "train_all", stop)
    with pytest.raises(KeyboardInterrupt):
        language.compare(torch.zeros(9, 4), None, None, [0], {})
    rates = {method.name: method.options.get("lr") for method in asked}
    assert language.CHOSEN_RATES.items() <= rates.items()
    (sgd,) = (method for method in asked if method.name == language.PAPER_SGD)
    assert sgd.options["optimizer"] is not None and sgd.schedule is not None


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
def test_too_few_tokens_are_refused(folder):
    with pytest.raises(ValueError, match="too few"):
        language.main(["--model", str(folder), "--tokens", "900"])


def test_test_documents_are_not_trained_on():
    documents = [[i] * (language.CONTEXT + 5) for i in range(100)]
    train, test = language.split_documents(documents, 20 * language.CONTEXT)
    assert len(train) == 18 and len(test) == 2
    assert (train[:, 0] % 10 != 9).all() and (test % 10 == 9).all()
    for few in (documents[:5], [*documents[:50], [1, 2]]):
        with pytest.raises(ValueError, match="too few"):
            language.split_documents(few, 60 * language.CONTEXT)


def test_rates_are_those_that_are_bold_in_the_tables_of_how_they_were_chosen():
    text = (ROOT / "data/README.md").read_text("utf-8").split("## How rates were chosen")[1]
    of_decay = ["the same, with weight decay", "the paper's loss, with weight decay"]
    names = dict.fromkeys(of_decay, language.PAPER_DECAY)
    of_digits = {method.name: method.options["lr"] for method in benchmark.METHODS if method.losses}
    tables = text.split("On the language model")
    for part, rates in zip(tables, (of_digits, language.CHOSEN_RATES)):
        chosen = {}
        for line in re.findall(r"^\| (.*) \|$", part, re.MULTILINE):
            name, *cells = re.split(r" *\| *", line)
            if name == "rate":
                header = [float(cell) for cell in cells if cell]
            elif "**" in line:
                (rate,) = (r for r, cell in zip(header, cells) if "**" in cell)
                chosen[names.get(name, name)] = rate
        assert len(chosen) >= 6 and chosen.items() <= rates.items()
