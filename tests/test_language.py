"""lab/activations.py and lab/language.py on a tiny GPT-2 with random weights: no network."""

import json
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lab import activations, language

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
    return partial(activations.load_activations, **options, places=PLACES[:1])


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
        assert_allclose(got.mean, train.mean(0), atol=1e-5)
        assert [got.limit, got.scale] == pytest.approx([limit, np.std(train - train.mean(0))])
        assert_allclose(got.x_test * got.scale + got.mean, test[fine_test], atol=1e-4)  # in order
        raw = (got.x_train * got.scale + got.mean).numpy()
        assert_allclose(np.sort(raw, 0), np.sort(train, 0), atol=1e-4)
        assert (np.abs(raw - train).max(1) > 1e-4).mean() > 0.9  # in another order


def test_the_cache_holds_what_its_key_names(load, tiny, tmp_path, monkeypatch):
    x, other = load()[0].x_train.clone(), tmp_path / "other.txt"
    other.write_text(tiny[1].read_text() + " w1")
    monkeypatch.setattr(activations, "language_model", lambda *_: 1 / 0)  # not needed any more
    load()[0].x_train[0] = 7  # stays in memory
    assert torch.equal(load()[0].x_train, x)
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
    same = -np.mean(log_p), loss(torch.Tensor.double), loss(torch.zeros_like, limit=0)
    assert [clean] * 3 == pytest.approx(same, abs=1e-6)  # the last: all rows are above the limit
    assert zeros == pytest.approx(loss(torch.zeros_like, n=1), abs=1e-5) != clean
    got = activations.loss_recovered(network, place, rows, {"some": lambda x: x * part})
    mean = loss(lambda raw: 0 * raw + rows.mean) - clean
    lost = loss(lambda raw: torch.where(part, raw, rows.mean)) - clean
    assert got["mean ablation"] == pytest.approx(mean, abs=1e-6)
    assert got["some"] == pytest.approx(100 * (1 - lost / mean), abs=0.1)


def test_the_experiment(tmp_path, monkeypatch):
    """From a text to the figure and its JSON."""
    monkeypatch.setattr(activations, "CACHE", tmp_path / "cache")
    folder, corpus, _ = tiny_gpt2(tmp_path, n_documents=200)
    words = f"--model {folder} --corpus {corpus} --output {tmp_path}/out --units 20 --tokens 1500"
    language.main(f"{words} --module h.1 --epochs 4 --l0 4 8 --seeds 0 1".split())
    run = json.loads((tmp_path / "out" / "language.json").read_text())
    assert {row["method"] for row in run["table"]} == {*language.SETTINGS, language.KMEANS}
    assert {*run["rates"]} < {n["method"] for n in run["numbers"] if n["place"] == "L0 8"}
    assert len(run["recovered"]) == 8 and len([*(tmp_path / "out").iterdir()]) == 3
    assert language.disagree({0: [1, 1.3], 1: [2, 2]}) > language.disagree({0: [1, 1.2]})
