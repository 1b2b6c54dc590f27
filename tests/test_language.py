"""lab/language.py on a tiny GPT-2 with random weights and a tokenizer trained here: no network."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from lab import language

ACT, PROJ = "h.1.mlp.act", "h.1.mlp.c_proj"  # the output of the one is the input of the other


def tiny_gpt2(folder, seed=0):
    """A folder with a GPT-2 of width 16, its tokenizer, and a text of 40 documents."""
    rng, words = np.random.default_rng(seed), [f"w{i}" for i in range(50)]
    documents = [" ".join(rng.choice(words, n)) for n in rng.integers(2, 30, size=40)]
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
def load(tiny, tmp_path):
    options = dict(model=tiny[0], module=ACT, corpus=tiny[1], n_tokens=200, context=10)
    return partial(language.load_activations, **options, cache=tmp_path / "cache")


@pytest.fixture(scope="module")
@torch.no_grad()
def oracle(tiny):
    """Raw rows of training and test, piece by piece: no hook, no batches."""
    tokenizer, network = language.language_model(tiny[0])
    rows, block = {False: [], True: []}, network.transformer.h[1]
    for i, document in enumerate(map(str.split, tiny[2])):
        for piece in (document[start : start + 10] for start in range(0, len(document), 10)):
            ids = torch.tensor([tokenizer.convert_tokens_to_ids(piece)])
            state = network(ids, output_hidden_states=True).hidden_states[1]
            after = state + block.attn(block.ln_1(state))[0]
            A = torch.nn.functional.gelu(block.mlp.c_fc(block.ln_2(after)), approximate="tanh")
            rows[i % 10 == 9] += A[0, 1:].tolist()
    return np.array(rows[False][:180]), np.array(rows[True][:20])


@pytest.mark.parametrize("max_norm", [10, 1.2])
@pytest.mark.parametrize("side, module", [("output", ACT), ("input", PROJ)])
def test_equals_a_plain_loop(load, oracle, side, module, max_norm, monkeypatch):
    monkeypatch.setattr(language, "MAX_NORM", max_norm)
    limit = max_norm * np.median(np.linalg.norm(oracle[0], axis=1))
    fine, fine_test = (np.linalg.norm(rows, axis=1) <= limit for rows in oracle[:2])
    train, got = oracle[0][fine], load(module=module, side=side)
    assert got.left_out == sum(~fine) + sum(~fine_test) and (max_norm == 10) == (not got.left_out)
    assert got.limit == pytest.approx(limit, rel=1e-5)
    assert_allclose(got.mean, train.mean(0), atol=1e-5)
    assert got.scale == pytest.approx((train - train.mean(0)).std(), rel=1e-5)
    assert_allclose(got.x_test * got.scale + got.mean, oracle[1][fine_test], atol=1e-4)  # in order
    raw = (got.x_train * got.scale + got.mean).numpy()
    assert_allclose(np.sort(raw, 0), np.sort(train, 0), atol=1e-4)
    assert (np.abs(raw - train).max(1) > 1e-4).mean() > 0.9  # in another order


def test_cache_and_devices(load, tiny, tmp_path, monkeypatch):
    with patch("os.replace", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        load()  # interrupted when all is written
    assert list((tmp_path / "cache").iterdir()) == []
    with patch.object(GPT2Block, "forward", autospec=True, side_effect=GPT2Block.forward) as run:
        first = load()
    assert len({call.args[0] for call in run.call_args_list}) == 2  # of 3: later ones do not run
    assert first.x_train.shape == (180, 64) and first.x_train.dtype == torch.float32
    other = tmp_path / "other.txt"  # blank lines separate documents, too
    other.write_text(tiny[1].read_text().replace("<|endoftext|>", "\n\n"))
    assert torch.equal(load(corpus=other, cache=tmp_path / "2").x_train, first.x_train)
    monkeypatch.setattr(language, "language_model", lambda *_: 1 / 0)  # not needed any more
    again = load()
    assert torch.equal(first.x_train, again.x_train)
    again.x_train[0] = 7  # stays in memory
    assert torch.equal(load().x_train, first.x_train)
    moved = [v.device.type for v in load(device="meta") if isinstance(v, torch.Tensor)]
    assert moved == ["meta"] * 3  # a device like a GPU in that no CPU's tensor mixes with its own
    changes = {"module": PROJ}, {"side": "input"}, {"n_tokens": 100}, {"context": 9}
    for change in (*changes, {"corpus": other}, {"model": tiny_gpt2(tmp_path, seed=5)[0]}):
        with pytest.raises(ZeroDivisionError):
            load(**change)


@pytest.mark.parametrize("side, module", [("output", ACT), ("input", PROJ), ("output", "h.1")])
def test_spliced_loss(load, tiny, side, module):
    sequences, (_, network), log_p = load().sequences, language.language_model(tiny[0]), []
    for ids in map(torch.tensor, sequences):
        after_second = network(ids[None]).logits.log_softmax(2)[0, 1:-1]
        log_p += after_second.gather(1, ids[2:, None]).flatten().tolist()
    loss, seen = partial(language.spliced_loss, network, module, sequences, side=side), []
    assert loss() == pytest.approx(-np.mean(log_p), abs=1e-6)
    same = loss(lambda rows: seen.append(len(rows)) or rows.double())
    assert same == pytest.approx(loss(), abs=1e-6)
    assert sum(seen) == 20  # every row of the test, and no padding
    assert loss(torch.zeros_like, limit=0) == pytest.approx(loss(), abs=1e-6)  # all above it
    zeros = loss(torch.zeros_like)
    assert abs(zeros - loss()) > 1e-3
    assert zeros == pytest.approx(loss(torch.zeros_like, batch_size=1), abs=1e-5)


@pytest.mark.parametrize("side, module", [("output", ACT), ("input", PROJ)])
def test_loss_recovered(load, tiny, side, module):
    _, network = language.language_model(tiny[0])
    data = load(side=side, module=module)
    D, part = data.x_test.shape[1], torch.arange(data.x_test.shape[1]) < 20
    whole = SimpleNamespace(encode=lambda x: x, decoder=torch.eye(D))
    some = SimpleNamespace(encode=lambda x: x * part, decoder=torch.eye(D))
    got = language.loss_recovered(
        network, module, data, {"all": whole, "some": some}, data.x_train, side=side
    )
    loss = partial(language.spliced_loss, network, module, data.sequences, side=side)
    mean = loss(lambda rows: 0 * rows + data.mean) - loss()
    lost = loss(lambda rows: torch.where(part, rows, data.mean)) - loss()
    assert got["mean ablation"] == pytest.approx(mean, abs=1e-6)
    assert got["all"] == pytest.approx(100, abs=1e-2)
    assert got["some"] == pytest.approx(100 * (1 - lost / mean), abs=0.1)


def test_clear_errors(load, tmp_path):
    (tmp_path / "single.txt").write_text("w1 w2 w3")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.gguf").write_bytes(b"GGUF")
    for options, error, message in (
        ({"module": "h.9.mlp"}, ValueError, r"no output of 'h.9.mlp'; .*h\.1\.mlp\.act"),
        ({"side": "middle"}, ValueError, "no middle of"),
        ({"module": "h"}, ValueError, "'h' never runs"),
        ({"model": "no/such-model"}, OSError, "'no/such-model' cannot be loaded: check its name"),
        ({"model": tmp_path / "half"}, OSError, "cannot be loaded: run `make language`"),
        ({"corpus": tmp_path / "no.txt"}, FileNotFoundError, "No such file .*no.txt"),
        ({"corpus": tmp_path / "single.txt"}, ValueError, "has 1 documents and needs 2"),
        ({"n_tokens": 9999}, ValueError, r"lacks \d+ training and \d+ test tokens"),
    ):
        with pytest.raises(error, match=message):
            load(**options)
    with patch("importlib.util.find_spec", return_value=None):
        with pytest.raises(OSError, match="not installed; run `make language`"):
            load(model="smollm2")


def test_corpus(load, tmp_path, monkeypatch):
    """The repository's own is what data/README.md says, and checked when it is read."""
    assert language.CORPUS_SHA256 in (language.CORPUS.parent / "README.md").read_text()
    assert len(load(corpus=None).x_test) == 20
    (tmp_path / "corpus.txt").write_bytes(language.CORPUS.read_bytes()[:-1])
    monkeypatch.setattr(language, "CORPUS", tmp_path / "corpus.txt")
    with pytest.raises(ValueError, match="damaged; restore it with `git checkout"):
        load(corpus=None)
