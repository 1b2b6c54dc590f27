"""lab/activations.py and lab/language.py on a tiny GPT-2 with random weights: no network."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import helpers as h
from lab import activations, language

ACT, PROJ = "h.1.mlp.act", "h.1.mlp.c_proj"  # the output of the one is the input of the other
PLACES = [(ACT, "output"), (PROJ, "input"), ("h.1", "output"), ("h.2", "input")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a GPT-2 of width 16, its tokenizer trained here, and a text."""
    folder, rng = tmp_path_factory.mktemp("tiny") / "gpt2", np.random.default_rng(0)
    words = [f"w{i}" for i in range(50)]
    documents = [" ".join(rng.choice(words, n)) for n in rng.integers(2, 30, size=200)]
    tokenizer = Tokenizer(models.WordLevel(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(documents, trainers.WordLevelTrainer(special_tokens=["?"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 51, "n_positions": 64, "n_embd": 16, "n_layer": 7, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(initializer_range=0.5, **sizes)).save_pretrained(folder)
    (folder / "corpus.txt").write_text("<|endoftext|>".join(documents))
    return folder, folder / "corpus.txt", documents


@pytest.fixture
def load(tiny, tmp_path, monkeypatch):
    options = {"model": tiny[0], "corpus": tiny[1], "n_tokens": 400, "context": 10}
    return partial(activations.load_activations, **options, places=PLACES[:1])


@torch.no_grad()
def test_rows_equal_those_of_a_plain_loop(load, tiny, monkeypatch):
    """Piece by piece: no hook, no batches. All four places are recorded in one pass."""
    tokenizer, network = activations.language_model(tiny[0])
    rows, block = [[[], []] for _ in range(2)], network.transformer.h[1]
    for i, document in enumerate(map(str.split, tiny[2][:60])):
        for piece in (document[start : start + 10] for start in range(0, len(document), 10)):
            ids = torch.tensor([tokenizer.convert_tokens_to_ids(piece)])
            before, after = network(ids, output_hidden_states=True).hidden_states[1:3]
            A = block.mlp.c_fc(block.ln_2(before + block.attn(block.ln_1(before))[0]))
            rows[0][i % 10 == 9] += block.mlp.act(A)[0, 1:].tolist()
            rows[1][i % 10 == 9] += after[0, 1:].tolist()
    monkeypatch.setattr(activations, "MAX_NORM", 1.2)
    for (train, test), got in zip([rows[0]] * 2 + [rows[1]] * 2, load(places=PLACES)):
        train, test = np.array(train[:360]), np.array(test[:40])
        limit = 1.2 * np.median(np.linalg.norm(train, axis=1))
        train, test = (part[np.linalg.norm(part, axis=1) <= limit] for part in (train, test))
        assert got.left_out == 400 - len(train) - len(test) > 0
        assert [got.limit, got.scale] == pytest.approx([limit, np.std(train - train.mean(0))])
        assert_allclose(got.x_test * got.scale + got.mean, test, atol=1e-4)  # in order
        raw = (got.x_train * got.scale + got.mean).numpy()
        assert_allclose(np.sort(raw, 0), np.sort(train, 0), atol=1e-4)


@pytest.mark.parametrize("place, n", [*zip(PLACES, [None, 5, None, 5])])
@torch.no_grad()
def test_loss_recovered_is_that_of_a_plain_loop_of_hooks(load, tiny, place, n):
    """On four sequences, one at a time, by an SAE that halves what it is given."""
    network, rows = activations.language_model(tiny[0])[1], load(places=[place])[0]
    x, basis, inside = rows.x_train, None, torch.eye(rows.x_train.shape[1])
    if n is not None:
        pca, (basis, held) = PCA(n).fit(x), language.principal(x, n)
        inside = torch.tensor(pca.components_.T @ pca.components_).float()
        known = [pca.explained_variance_ratio_.sum(), 1]
        assert [held, float((x @ basis).var(0).mean())] == pytest.approx(known, rel=1e-4)
    rows = rows._replace(limit=float((x * rows.scale + rows.mean).norm(dim=1).quantile(0.8)))
    sequences = rows.sequences[:: len(rows.sequences) // 4][:4]
    assert len({len(s) for s in sequences}) > 1  # some are padded

    def loss(factor):
        def hook(module, *seen):
            X = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
            for row in X[0, 1:]:
                if row.norm() <= rows.limit:
                    row -= (1 - factor) * inside @ (row - rows.mean)

        module, nats = network.transformer.get_submodule(place[0]), []
        kind = {"input": module.register_forward_pre_hook, "output": module.register_forward_hook}
        handle = kind[place[1]](hook)
        for ids in map(torch.tensor, sequences):
            log_p = network(ids[None]).logits.log_softmax(2)[0, 1:-1]
            nats += (-log_p.gather(1, ids[2:, None])).flatten().tolist()
        handle.remove()
        return np.mean(nats)

    got = activations.loss_recovered(network, place, rows, {"half": lambda c: c / 2}, basis, n=4)
    assert got["mean ablation"] == pytest.approx(span := loss(0) - loss(1), abs=1e-5)
    assert got["half"] == pytest.approx(100 * (loss(0) - loss(0.5)) / span, abs=0.05)


def test_models_and_their_rows(load, tiny):
    """One epoch at the whole rate is `helpers.fit`; every model and pair has its own row."""
    names, sizes = ["bounded", language.CUT, "L1 SAE"], {"batch_size": 32, "sae_batch_size": 32}
    site = language.SITES["gpt2"]["(a)"]._replace(module=ACT, units=12, epochs=1, **sizes)
    site = site._replace(cases={n: site.cases[n] for n in names})
    rows, network = load()[0], activations.language_model(tiny[0])[1]
    x, (lam, _), lr = rows.x_train, *site.cases["bounded"]
    found = language.trained(site, x, [0, 1])
    for name, sparsity in zip(names, (h.lse_loss, h.uncoupled_loss)):
        model, kappa = h.Encoder(64, 12, seed=1), float(x.var(0).sum()) / 12
        loss = partial(h.bounded_loss, lam=lam, kappa=kappa, sparsity=sparsity)
        h.fit(model, loss, x, epochs=1, batch_size=32, lr=lr, seed=1)
        assert_allclose(found[name, lam, 1].W.detach(), model.W.detach(), atol=1e-5)
    table, shared, _ = language.measured(site, rows, found, network, None)
    for row in table.sample(4, random_state=0).itertuples():
        sae = h.with_decoder(found[row.method, row.setting, row.seed], x, h.transpose_decoder)
        lost = activations.loss_recovered(network, (ACT, "output"), rows, {0: sae})
        assert row.recovered == pytest.approx(lost[0], abs=1e-3)
    codes = [found["bounded", lam, seed].encode(rows.x_test).detach().numpy() for seed in (0, 1)]
    block = np.nan_to_num(np.corrcoef(*codes, rowvar=False)[:12, 12:])
    pair = shared[(shared.method == "bounded") & (shared.setting == lam)]
    assert pair.agreement.tolist() == pytest.approx([block[linear_sum_assignment(-block)].mean()])


def test_gpt2_from_its_name_to_its_table(tiny, tmp_path, monkeypatch, capsys):
    """It says what to change where L0 10 and 16 are not enclosed."""
    monkeypatch.chdir(tiny[0].parent)
    residual, sites = language.SITES["smollm2"]["(b)"], language.SITES["gpt2"]
    other = residual._replace(module="h.6", units=24, components=12, epochs=1)
    monkeypatch.setitem(sites, "(b)", other)
    options = f"--model gpt2 --tokens 1500 --seeds 0 1 --corpus {tiny[1]} --output {tmp_path}"
    language.main(options.split())
    said, run = capsys.readouterr().out, json.loads((tmp_path / "language.json").read_text())
    said, table = said.partition("(b)")[0], pd.DataFrame(run["table"]).query("part == '(a)'")
    for name, (settings, _) in sites["(a)"].cases.items():
        low, high = (table.l0[(table.method == name) & (table.setting == s)] for s in settings)
        fine = [(low <= 10).all(), (high >= 16).all()]
        assert [f"{name}: {s:g} gives" not in said for s in settings] == fine
    assert "change it in SITES" in said and "TopK SAE: " not in said
    row = next(r for r in run["result"] if r["method"] == "TopK SAE" and r["L0"] == 16)
    low, high = table[table.method == "TopK SAE"].groupby("setting").recovered.mean()
    t = np.log(16 / 9) / np.log(17 / 9)
    assert row["recovered"] == pytest.approx((1 - t) * low + t * high)
