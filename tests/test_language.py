"""lab/activations.py and lab/language.py on a tiny GPT-2 with random weights: no network."""

import json
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lab import activations, benchmark, language

ACT, PROJ = "h.1.mlp.act", "h.1.mlp.c_proj"  # the output of the one is the input of the other
PLACES = [(ACT, "output"), (PROJ, "input"), ("h.1", "output"), ("h.2", "input")]


def tiny_gpt2(folder, seed=0, n_documents=40):
    """A folder with a GPT-2 of width 16, its tokenizer trained here, and a text."""
    rng, words = np.random.default_rng(seed), [f"w{i}" for i in range(50)]
    documents = [" ".join(rng.choice(words, n)) for n in rng.integers(2, 30, size=n_documents)]
    tokenizer = Tokenizer(models.WordLevel(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(documents, trainers.WordLevelTrainer(special_tokens=["?"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "n_positions": 64, "n_embd": 16}
    config = GPT2Config(n_layer=3, n_head=2, initializer_range=0.5, **sizes)
    GPT2LMHeadModel(config).save_pretrained(folder)
    (folder / "corpus.txt").write_text("<|endoftext|>".join(documents))
    return folder, folder / "corpus.txt", documents


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def load(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "CACHE", tmp_path / "cache")
    options = {"model": tiny[0], "corpus": tiny[1], "n_tokens": 200, "context": 10}
    return partial(activations.load_activations, **options, places=[(ACT, "output")])


@pytest.mark.parametrize("max_norm", [10, 1.2])
@torch.no_grad()
def test_equals_a_plain_loop(load, tiny, max_norm, monkeypatch):
    """Piece by piece: no hook, no batches. All four places are recorded in one pass."""
    tokenizer, network = activations.language_model(tiny[0])
    rows, block = [[[], []] for _ in range(2)], network.transformer.h[1]
    for i, document in enumerate(map(str.split, tiny[2])):
        for piece in (document[start : start + 10] for start in range(0, len(document), 10)):
            ids = torch.tensor([tokenizer.convert_tokens_to_ids(piece)])
            before, after = network(ids, output_hidden_states=True).hidden_states[1:3]
            A = block.mlp.c_fc(block.ln_2(before + block.attn(block.ln_1(before))[0]))
            rows[0][i % 10 == 9] += block.mlp.act(A)[0, 1:].tolist()
            rows[1][i % 10 == 9] += after[0, 1:].tolist()
    monkeypatch.setattr(activations, "MAX_NORM", max_norm)
    for (train, test), got in zip([rows[0]] * 2 + [rows[1]] * 2, load(places=PLACES)):
        train, test = np.array(train[:180]), np.array(test[:20])
        limit = max_norm * np.median(np.linalg.norm(train, axis=1))
        fine, fine_test = (np.linalg.norm(part, axis=1) <= limit for part in (train, test))
        train, left_out = train[fine], sum(~fine) + sum(~fine_test)
        assert got.left_out == left_out and bool(left_out) == (max_norm == 1.2)
        assert got.limit == pytest.approx(limit, rel=1e-5)
        assert_allclose(got.mean, train.mean(0), atol=1e-5)
        assert got.scale == pytest.approx((train - train.mean(0)).std(), rel=1e-5)
        assert_allclose(got.x_test * got.scale + got.mean, test[fine_test], atol=1e-4)  # in order
        raw = (got.x_train * got.scale + got.mean).numpy()
        assert_allclose(np.sort(raw, 0), np.sort(train, 0), atol=1e-4)
        assert (np.abs(raw - train).max(1) > 1e-4).mean() > 0.9  # in another order


def test_cache_and_devices(load, tiny, tmp_path, monkeypatch):
    with patch("os.replace", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        load()  # interrupted when all is written
    assert list((tmp_path / "cache").iterdir()) == []
    x, other = load()[0].x_train, tmp_path / "other.txt"  # blank lines separate documents, too
    other.write_text(tiny[1].read_text().replace("<|endoftext|>", "\n\n"))
    assert torch.equal(load(corpus=other)[0].x_train, x)
    other.write_text(other.read_text() + " w1")
    monkeypatch.setattr(activations, "language_model", lambda *_: 1 / 0)  # not needed any more
    load()[0].x_train[0] = 7  # stays in memory
    assert torch.equal(load()[0].x_train, x)
    moved = [v.device.type for v in load(device="meta")[0] if isinstance(v, torch.Tensor)]
    assert moved == ["meta"] * 3  # a device like a GPU in that no CPU's tensor mixes with its own
    changes = {"places": PLACES[1:]}, {"n_tokens": 100}, {"context": 9}, {"corpus": other}
    for change in (*changes, {"model": tiny_gpt2(tmp_path, seed=5)[0]}):
        with pytest.raises(ZeroDivisionError):
            load(**change)
    for name in ("_sequences", "_run", "_record"):  # the code that made the rows is in the key
        with patch.object(activations, name, lambda *_: None), pytest.raises(ZeroDivisionError):
            load()


@pytest.mark.parametrize("place", PLACES)
def test_splicing(load, tiny, place):
    rows, (_, network), log_p = load(places=[place])[0], activations.language_model(tiny[0]), []
    for ids in map(torch.tensor, rows.sequences):
        after_second = network(ids[None]).logits.log_softmax(2)[0, 1:-1]
        log_p += after_second.gather(1, ids[2:, None]).flatten().tolist()
    loss = partial(activations.spliced_loss, network, place, rows.sequences)
    clean, zeros, part = loss(), loss(torch.zeros_like), torch.arange(rows.x_test.shape[1]) < 10
    assert clean == pytest.approx(-np.mean(log_p), abs=1e-6)
    assert loss(torch.Tensor.double) == pytest.approx(clean, abs=1e-6)
    assert loss(torch.zeros_like, limit=0) == pytest.approx(clean, abs=1e-6)  # all above it
    assert zeros == pytest.approx(loss(torch.zeros_like, n=1), abs=1e-5)
    assert abs(zeros - clean) > 1e-3
    got = activations.loss_recovered(network, place, rows, {"some": lambda x: x * part})
    mean = loss(lambda raw: 0 * raw + rows.mean) - clean
    lost = loss(lambda raw: torch.where(part, raw, rows.mean)) - clean
    assert got["mean ablation"] == pytest.approx(mean, abs=1e-6)
    assert got["some"] == pytest.approx(100 * (1 - lost / mean), abs=0.1)


def test_clear_errors(load, tmp_path, monkeypatch):
    for name, content in (("single", "w1 w2"), ("cut", activations.CORPUS.read_text()[:-1])):
        (tmp_path / name).write_text(content)
    assert activations.CORPUS_SHA256 in (activations.CORPUS.parent / "README.md").read_text()
    monkeypatch.setattr(activations, "CORPUS", tmp_path / "cut")
    for options, error, message in (
        ({"places": [("h.9", "output")]}, ValueError, r"no output of 'h.9'; .*h\.1\.mlp\.act"),
        ({"places": [("h.1", "middle")]}, ValueError, "no middle of"),
        ({"places": [("h", "output")]}, ValueError, "'h' never runs"),
        ({"model": "no/such-model"}, OSError, "'no/such-model' cannot be loaded: check its name"),
        ({"corpus": tmp_path / "no.txt"}, FileNotFoundError, "No such file .*no.txt"),
        ({"corpus": tmp_path / "single"}, ValueError, "has 1 documents and needs 2"),
        ({"corpus": None}, ValueError, "damaged; restore it with `git checkout"),
        ({"n_tokens": 9999}, ValueError, r"lacks \d+ training and \d+ test tokens"),
    ):
        with pytest.raises(error, match=message):
            load(**options)
    with patch("importlib.util.find_spec", return_value=None):
        with pytest.raises(OSError, match="not installed; run `make language`"):
            load(model="smollm2")


def test_what_is_widened(monkeypatch, capsys):
    def fake(chosen, x, K, rates, **_):  # the best rate of each method is its name
        losses = {n: {r: 100 * abs(np.log(r / float(n))) for r in rates} for n in chosen}
        return None, {n: {**v, 0.128: np.nan} if 0.128 in rates else v for n, v in losses.items()}

    monkeypatch.setattr(benchmark, "tune", fake)
    tried = language.tune(dict.fromkeys(("0.004", "0.064", "0.0005", "1e-9")), range(600), 7, 1, 50)
    best = [min(losses, key=losses.get) for losses in tried.values()]
    assert best == [(50, 0.004), (50, 0.064), (50, 0.0005), (50, 0.002 / 64)]
    assert capsys.readouterr().out.count("edge") == 8 and len(tried["1e-9"]) == 10
    assert tried["0.004"][50, 0.002] == pytest.approx(np.log(2))  # of 100 held-out rows
    seen = {100.0: [10.0, 10.2], 225.0: [15.0, 15.3], 300.0: [0.0, 20.0]}  # one died
    assert language.beyond(seen, (11, 14)) == language.beyond({1: [0.0], 2: [3.0]}, (5,)) == []
    assert_allclose(np.sqrt(language.beyond(seen, (9, 16))), [7.65, 19.2], rtol=0.02)


def test_the_experiment(tmp_path, monkeypatch, capsys):
    """From a text to the figure and its JSON."""
    monkeypatch.setattr(activations, "CACHE", tmp_path / "cache")
    folder, corpus, _ = tiny_gpt2(tmp_path, n_documents=200)
    words = f"--model {folder} --corpus {corpus} --output {tmp_path}/out --units 20 --tokens 1500"
    with pytest.raises(SystemExit):
        language.main(words.split())
    assert "name a --module" in capsys.readouterr().err
    language.main(f"{words} --module h.1 --epochs 4 --l0 4 8 --seeds 0 1".split())
    assert len(list((tmp_path / "out").iterdir())) == 3
    run = json.loads((tmp_path / "out" / "language.json").read_text())
    table, shown = pd.DataFrame(run["table"]), {row["method"]: row for row in run["result"]}
    assert set(table.method) == set(shown) == {*language.SETTINGS, language.KMEANS}
    assert set(run["rates"]) == {f"(a) {m}" for m in language.SETTINGS}
    for number in run["numbers"]:
        method, l0 = number["method"].removeprefix("(a) "), float(number["place"][3:])
        values = list(benchmark.at_l0(table, method, number["quantity"], l0))
        assert number["seeds"] == pytest.approx(values)
        word = f"{np.mean(values):.3f}" if values else "–"
        assert word in shown[method][number["quantity"]].split(", ")
    assert len(run["recovered"]) == len(language.SETTINGS) + 1
    x = torch.randn(500, 9, generator=torch.Generator().manual_seed(0)) * torch.arange(9.0)
    some, _, held = language.components(x - x.mean(0), x[:1], 4)
    assert held == pytest.approx(PCA(4).fit(x).explained_variance_ratio_.sum(), rel=1e-4)
    assert_allclose(torch.cov(some.T), torch.diag(some.var(0)), atol=1e-4)
