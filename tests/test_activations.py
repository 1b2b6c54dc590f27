"""activations.py on a tiny GPT-2 with random weights and a tokenizer trained here: no network."""

from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import activations

ACT, PROJ = "h.1.mlp.act", "h.1.mlp.c_proj"  # the output of the one is the input of the other


def tiny_gpt2(folder, seed=0, layers=3):
    """A folder with a GPT-2 of width 16, its tokenizer, and a text of 40 documents."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = np.array([f"w{i}" for i in range(50)])
    lengths = np.random.default_rng(seed).integers(2, 30, size=40)
    rng = np.random.default_rng(seed + 1)
    documents = [" ".join(rng.choice(words, n)) for n in lengths]
    tokenizer = Tokenizer(models.WordLevel(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(documents, trainers.WordLevelTrainer(special_tokens=["?"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "n_positions": 64, "n_embd": 16}
    config = GPT2Config(n_layer=layers, n_head=2, initializer_range=0.5, **sizes)
    GPT2LMHeadModel(config).save_pretrained(folder)
    corpus = folder / "corpus.txt"
    corpus.write_text("<|endoftext|>".join(documents))
    return folder, corpus, documents


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def load(tiny, tmp_path):
    defaults = {"n_tokens": 200, "context": 10, "cache": tmp_path / "cache"}
    defaults |= {"model": tiny[0], "module": ACT, "corpus": tiny[1]}
    return lambda **options: activations.load_activations(**defaults | options)


@pytest.fixture(scope="module")
@torch.no_grad()
def oracle(tiny):
    """Raw training and test rows, document by document, by hidden state: no hook, no batches."""
    from transformers import AutoModel, AutoTokenizer

    folder, _, documents = tiny
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows, block = {False: [], True: []}, network.h[1]
    for i, document in enumerate(documents):
        tokens = tokenizer(document)["input_ids"]
        for start in range(0, len(tokens), 10):
            piece = torch.tensor([tokens[start : start + 10]])
            state = network(piece, output_hidden_states=True).hidden_states[1]
            after = state + block.attn(block.ln_1(state))[0]
            A = torch.nn.functional.gelu(block.mlp.c_fc(block.ln_2(after)), approximate="tanh")
            rows[i % 10 == 9].append(A[0, 1:].numpy())
    return np.concatenate(rows[False])[:180], np.concatenate(rows[True])[:20]


@pytest.mark.parametrize("max_norm", [10, 1.2])
@pytest.mark.parametrize("side, module", [("output", ACT), ("input", PROJ)])
def test_equals_a_plain_loop(load, oracle, side, module, max_norm, monkeypatch):
    monkeypatch.setattr(activations, "MAX_NORM", max_norm)
    limit = max_norm * np.median(np.linalg.norm(oracle[0], axis=1))
    train, test = (rows[np.linalg.norm(rows, axis=1) <= limit] for rows in oracle)
    got = load(module=module, side=side)
    assert got.left_out == 200 - len(train) - len(test) and (max_norm == 10) == (not got.left_out)
    assert got.limit == pytest.approx(limit, rel=1e-5)
    assert_allclose(got.mean, train.mean(0), atol=1e-5)
    assert got.scale == pytest.approx((train - train.mean(0)).std(), rel=1e-5)
    assert_allclose(got.x_test * got.scale + got.mean, test, atol=1e-4)  # in order
    raw = (got.x_train * got.scale + got.mean).numpy()
    assert_allclose(np.sort(raw, 0), np.sort(train, 0), atol=1e-4)
    assert (np.abs(raw - train).max(1) > 1e-4).mean() > 0.9  # in another order
    assert float(got.x_train.var(0, correction=0).mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("max_norm", [10, 1.2])
def test_rows_and_their_words(load, oracle, tiny, max_norm, monkeypatch):
    monkeypatch.setattr(activations, "MAX_NORM", max_norm)
    got, norm = load(), np.linalg.norm(oracle[1], axis=1)
    pieces = [d.split()[i : i + 10] for d in tiny[2][9::10] for i in range(0, d.count(" ") + 1, 10)]
    at = [(" ".join(p[max(0, t - 8) : t]), p[t]) for p in pieces for t in range(1, len(p))]
    assert [tuple(pair) for pair in got.texts] == [at[i] for i in np.flatnonzero(norm <= got.limit)]
    assert len(got.tokens) == len(got.x_test) and sum(len(s) - 1 for s in got.sequences) == 20


def test_later_layers_do_not_run(load):
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    with patch.object(GPT2Block, "forward", autospec=True, side_effect=GPT2Block.forward) as run:
        load()
    assert len({call.args[0] for call in run.call_args_list}) == 2  # of 3


def test_cache(load, tiny, tmp_path, monkeypatch):
    first = load()
    assert first.x_train.shape == (180, 64) and first.x_train.dtype == torch.float32
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [""]
    other = tmp_path / "other.txt"  # blank lines separate documents, too
    other.write_text(tiny[1].read_text().replace("<|endoftext|>", "\n\n"))
    assert torch.equal(load(corpus=other, cache=tmp_path / "2").x_train, first.x_train)
    monkeypatch.setattr(activations, "language_model", lambda *_: 1 / 0)  # not needed any more
    again = load()
    assert torch.equal(first.x_train, again.x_train) and again.texts == first.texts
    again.x_train[0] = 7  # stays in memory
    assert torch.equal(load().x_train, first.x_train)
    changes = {"module": PROJ}, {"side": "input"}, {"n_tokens": 100}, {"context": 9}
    for change in (*changes, {"corpus": other}, {"model": tiny_gpt2(tmp_path, seed=5)[0]}):
        with pytest.raises(ZeroDivisionError):
            load(**change)


def test_interrupted(load, tmp_path):
    with patch("torch.save", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        load()  # its rows are written by then
    assert list((tmp_path / "cache").iterdir()) == []
    assert load().x_train.shape == (180, 64)


@pytest.mark.parametrize("side, module", [("output", ACT), ("input", PROJ), ("output", "h.1")])
def test_spliced_loss(load, tiny, side, module):
    sequences = load().sequences
    _, network = activations.language_model(tiny[0])
    log_p = []
    for ids in map(torch.tensor, sequences):
        after_second = network(ids[None]).logits.log_softmax(2)[0, 1:-1]
        log_p += after_second.gather(1, ids[2:, None]).flatten().tolist()
    loss, seen = partial(activations.spliced_loss, network, module, sequences, side=side), []
    assert loss() == pytest.approx(-np.mean(log_p), abs=1e-6)
    assert loss(lambda rows: seen.append(len(rows)) or rows) == pytest.approx(loss(), abs=1e-6)
    assert sum(seen) == 20  # every row of the test, and no padding
    assert loss(torch.zeros_like, limit=0) == pytest.approx(loss(), abs=1e-6)  # all above it
    zeros = loss(torch.zeros_like)
    assert abs(zeros - loss()) > 1e-3
    assert zeros == pytest.approx(loss(torch.zeros_like, batch_size=1), abs=1e-5)


def test_clear_errors(load, tmp_path):
    (tmp_path / "single.txt").write_text("w1 w2 w3")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.gguf").write_bytes(b"GGUF")
    for options, error, message in (
        ({"module": "h.9.mlp"}, ValueError, r"no output of 'h.9.mlp'; .*h\.1\.mlp\.act"),
        ({"side": "middle"}, ValueError, "no middle of"),
        ({"module": "h"}, ValueError, "'h' never runs"),
        ({"model": "no/such-model"}, OSError, "'no/such-model' cannot be loaded: check its name"),
        ({"model": tmp_path}, OSError, "cannot be loaded"),
        ({"model": tmp_path / "half"}, OSError, "cannot be loaded: run `make language`"),
        ({"corpus": tmp_path / "no.txt"}, FileNotFoundError, "No such file .*no.txt"),
        ({"corpus": tmp_path / "single.txt"}, ValueError, "has 1 documents and needs 2"),
        ({"n_tokens": 9999}, ValueError, r"lacks \d+ training and \d+ test tokens"),
    ):
        with pytest.raises(error, match=message):
            load(**options)
    not_installed = patch("importlib.util.find_spec", return_value=None)
    with not_installed, pytest.raises(OSError, match="not installed; run `make language`"):
        load(model="smollm2")


def test_corpus(load, tmp_path, monkeypatch):
    """The repository's own is what data/README.md says, and checked when it is read."""
    text = activations.CORPUS.read_text(encoding="utf-8")
    assert activations.CORPUS_SHA256 in (activations.CORPUS.parent / "README.md").read_text()
    assert 1e6 < len(text) < 2e6 and text.count("\n<|endoftext|>\n") > 50 and "\r" not in text
    assert len(load(corpus=None).x_test) == 20
    monkeypatch.setattr(activations, "CORPUS", tmp_path / "corpus.txt")
    activations.CORPUS.write_text(text[:-1])
    with pytest.raises(ValueError, match="damaged; restore it with `git checkout"):
        load(corpus=None)
