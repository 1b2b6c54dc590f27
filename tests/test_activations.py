"""activations.py on a tiny GPT-2 with random weights and a tokenizer trained here: no network."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import activations

MODULE = "h.1.mlp.act"


def tiny_gpt2(folder, seed=0, layers=3):
    """A folder with a GPT-2 of width 16, its tokenizer, and a text of 40 documents."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

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
    GPT2Model(GPT2Config(n_layer=layers, n_head=2, **sizes)).save_pretrained(folder)
    corpus = folder / "corpus.txt"
    corpus.write_text("<|endoftext|>".join(documents))
    return folder, corpus, documents


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def load(tiny, tmp_path):
    def load(model=tiny[0], module=MODULE, corpus=tiny[1], n_tokens=200, **options):
        options = {"context": 10, "cache": tmp_path / "cache"} | options
        return activations.load_activations(model, module, corpus, n_tokens=n_tokens, **options)

    return load


def test_equals_a_plain_loop(tiny, load):
    """Document by document, all layers, by hidden state: no hook, no batches."""
    from transformers import AutoModel, AutoTokenizer

    folder, _, documents = tiny
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows = {False: [], True: []}
    for i, document in enumerate(documents):
        tokens = tokenizer(document)["input_ids"]
        for start in range(0, len(tokens), 10):
            piece = torch.tensor([tokens[start : start + 10]])
            with torch.no_grad():
                states = network(piece, output_hidden_states=True).hidden_states
                block = network.h[1]
                after = states[1] + block.attn(block.ln_1(states[1]))[0]
                A = torch.nn.functional.gelu(block.mlp.c_fc(block.ln_2(after)), approximate="tanh")
            rows[i % 10 == 9].append(A[0, 1:].numpy())
    train, test = (np.concatenate(rows[part]) for part in (False, True))
    train, test = train[:180], np.concatenate(rows[True])[:20]
    scale = (train - train.mean(0)).std()
    got_train, got_test = load()
    for got, plain in ((got_train, train), (got_test, test)):
        expected = (plain - train.mean(0)) / scale
        assert_allclose(  # batches are ordered by length: compare as sets
            np.sort(got.numpy(), 0), np.sort(expected, 0), atol=1e-4
        )
    assert_allclose(got_train.mean(0), 0, atol=1e-5)
    assert float(got_train.var(0, correction=0).mean()) == pytest.approx(1, abs=1e-5)


def test_later_layers_do_not_run(load, monkeypatch):
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    blocks, forward = set(), GPT2Block.forward
    monkeypatch.setattr(
        GPT2Block, "forward", lambda self, *a, **k: blocks.add(self) or forward(self, *a, **k)
    )
    load()
    assert len(blocks) == 2  # of 3; the module is in the second


def test_cache(load, tiny, tmp_path, monkeypatch):
    x, x_test = load()
    assert x.dtype == torch.float32 and x.shape == (180, 64) and x_test.shape == (20, 64)
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 1
    monkeypatch.setattr(activations, "_load_model", lambda *_: 1 / 0)  # not needed any more
    again = load()
    assert torch.equal(x, again[0]) and torch.equal(x_test, again[1])
    mapped = load(in_memory=0)  # from the file, and a change stays in memory
    mapped[0][0] = 7
    assert torch.equal(load()[0], x)
    other = tmp_path / "other.txt"
    other.write_text(tiny[1].read_text().replace("w1", "w2"))
    for change in ({"module": "h.0.mlp.act"}, {"n_tokens": 100}, {"context": 9}, {"corpus": other}):
        with pytest.raises(ZeroDivisionError):
            load(**change)
    with pytest.raises(ZeroDivisionError):
        load(tiny_gpt2(tmp_path, seed=5)[0])


def test_interrupted(load, tmp_path, monkeypatch):
    from transformers import GPT2Model

    forward, calls = GPT2Model.forward, []

    def interrupt(self, *a, **k):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, *a, **k)

    monkeypatch.setattr(GPT2Model, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load()
    assert list((tmp_path / "cache").iterdir()) == []
    assert load()[0].shape == (180, 64)


def test_blank_lines_separate_documents(load, tiny, tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text(tiny[1].read_text().replace("<|endoftext|>", "\n\n"))
    assert torch.equal(load(corpus=plain)[0], load()[0])


def test_clear_errors(load, tmp_path):
    empty, single = tmp_path / "empty.txt", tmp_path / "single.txt"
    empty.write_text("\n \n")
    single.write_text("w1 w2 w3")
    for options, error, message in (
        ({"module": "h.9.mlp"}, ValueError, r"no module 'h.9.mlp'; it has .*h\.1\.mlp\.act"),
        ({"model": "no/such-model"}, OSError, "'no/such-model' cannot be loaded.*give a folder"),
        ({"model": tmp_path}, OSError, "cannot be loaded"),
        ({"corpus": tmp_path / "no.txt"}, FileNotFoundError, "CORPUS .*no.txt is not a file"),
        ({"corpus": empty}, ValueError, "has 0 documents and needs 2"),
        ({"corpus": single}, ValueError, "has 1 documents and needs 2"),
        ({"n_tokens": 9999}, ValueError, r"training and \d+ test tokens of the 9000 and 999 asked"),
    ):
        with pytest.raises(error, match=message):
            load(**options)


def test_default_corpus_without_a_network(load, monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(OSError, match="cannot be fetched .ConnectionError.*set CORPUS"):
        load(corpus=None)
