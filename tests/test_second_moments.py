"""Second moments of keys: streamed, cached, read from files, and what is refused."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from conftest import (
    EGYPT,
    make_gpt2,
    make_llama,
    make_tokenizer,
    same_weights,
    weights_of,
)
from locate import TEXT, InterruptAt, apply, find_moments, hparams_for, random_moment

from causaledit.errors import EditFailedError, HparamsError, ModelError
from causaledit.methods.alphaedit.null_space import null_space_projection
from causaledit.methods.shared.locate_edit.corpus import open_corpus
from causaledit.methods.shared.locate_edit.covariance import cache_key, collect
from causaledit.methods.shared.locate_edit.editor import LocateEditReport
from causaledit.methods.shared.locate_edit.stored import read_moment, write_moment
from causaledit.models.layout import find_layout, not_behind_keys
from causaledit.models.weights import revision_of
from causaledit.support.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("own_files")


# ---- statistics ------------------------------------------------------------------------------------
def stream(model, file, layers=(0, 1), partial=None, save_every=60.0, **changes):
    hparams = hparams_for("MEMIT", layers=list(layers), mom2_dataset=str(file), **{"mom2_dtype": "float64", **changes})
    layout = find_layout(model, hparams)
    corpus = open_corpus(str(file))
    return collect(model, make_tokenizer(), layout, layers, corpus, hparams, SilentProgress(), partial, save_every)


def by_hand(model, file, layer, length=24):
    tokenizer, keys = make_tokenizer(), []
    module = find_layout(model, hparams_for("ROME")).projection_module(model, layer)
    handle = module.register_forward_hook(lambda _, args, __: keys.append(args[0][0].double()))
    for text in [part for part in file.read_text("utf-8").split("\n\n") if part.strip()]:
        ids = tokenizer(text)["input_ids"]
        for start in range(0, len(ids), length):
            with torch.no_grad():
                model(input_ids=torch.tensor([ids[start : start + length]]))
    handle.remove()
    every = torch.cat(keys)
    return every.T @ every / len(every), len(every)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
@pytest.mark.parametrize("budget", [24, 70, 4096], ids=["one by one", "few", "all"])
def test_streamed_moments_are_the_plain_mean(make, budget, text_file):
    model = make()
    text_file.write_text(text_file.read_text("utf-8").replace("Oslo, ", "Oslo, \n"), "utf-8")
    found = stream(model, text_file, mom2_batch_tokens=budget)
    for layer in (0, 1):
        expected, count = by_hand(model, text_file, layer)
        assert found[layer].count == count
        torch.testing.assert_close(found[layer].matrix, expected, rtol=1e-4, atol=1e-7)


def test_token_and_document_budgets(text_file):
    model = make_llama()
    assert stream(model, text_file, mom2_max_tokens=37)[0].count == 37
    one = len(make_tokenizer()("The capital of Egypt is Cairo.")["input_ids"])
    assert stream(model, text_file, mom2_n_samples=1, mom2_max_tokens=None)[0].count == one


def test_an_interrupted_collection_goes_on_where_it_was(text_file, tmp_path):
    model, partial = make_llama(), tmp_path / "half.npz"
    whole = stream(model, text_file, mom2_batch_tokens=60)
    with InterruptAt(model, 3), pytest.raises(KeyboardInterrupt):
        stream(model, text_file, partial=partial, save_every=0.0, mom2_batch_tokens=60)
    with np.load(partial) as half:
        assert 0 < half["count"] < whole[0].count
    passes = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(1))
    resumed = stream(model, text_file, partial=partial, mom2_batch_tokens=60)
    resumed_passes = len(passes)
    stream(model, text_file, mom2_batch_tokens=60)
    handle.remove()
    assert resumed_passes == len(passes) - resumed_passes - 2
    assert all(torch.equal(resumed[n].matrix, whole[n].matrix) and resumed[n].count == whole[n].count for n in whole)
    partial.write_bytes(b"half a file")
    assert torch.equal(stream(model, text_file, partial=partial)[0].matrix, stream(model, text_file)[0].matrix)


def test_the_cache_is_used_and_written_whole(text_file, tmp_path):
    model = make_llama()
    first = find_moments(model, mom2_dataset=str(text_file))
    files = sorted((tmp_path / "cache" / "statistics").iterdir())
    assert len(files) == 2  # one per layer, no partial ones
    runs = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda *_: runs.append(1))
    again = find_moments(model, mom2_dataset=str(text_file))
    handle.remove()
    assert not runs
    for layer in (0, 1):
        torch.testing.assert_close(again[layer].matrix, first[layer].matrix)
        assert again[layer].count == first[layer].count


def test_what_the_cache_key_depends_on(text_file, tmp_path):
    model = make_llama()
    layout = find_layout(model, hparams_for("MEMIT"))
    corpus = open_corpus(str(text_file))

    def key(layer=1, corpus=corpus, **changes):
        revision = revision_of(model, not_behind_keys(layout, layer))
        return cache_key(revision, layout.projection.format(layer), corpus, hparams_for("MEMIT", **changes))

    base = key()
    assert key() == base
    other = tmp_path / "other.txt"
    other.write_text(TEXT * 5, encoding="utf-8")
    keys = [base, key(layer=0), key(corpus=open_corpus(str(other))), key(mom2_n_samples=3), key(mom2_dtype="float64"),
            key(mom2_max_tokens=9)]  # fmt: skip
    assert len(set(keys)) == len(keys)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 1  # the edited projection itself is not behind its keys
        assert key() == base
        model.model.layers[0].mlp.down_proj.weight[0, 0] += 1
        assert key() != base
        assert key(layer=0) == keys[1]


def test_without_a_corpus_the_models_own_text_serves(caplog, tmp_path):
    report = LocateEditReport()
    with caplog.at_level(logging.INFO):
        apply("MEMIT", make_llama(), EGYPT, report=report, stats_cache=True, mom2_dataset=None)
    assert "sampled from the model itself" in report.statistics[0]
    assert "sampled from the model itself" in caplog.text
    [samples] = (tmp_path / "cache" / "statistics").glob("samples-*.jsonl")
    texts = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    assert len(texts) == 32
    assert len(set(texts)) == 32


def test_few_tokens_are_singular_until_a_ridge_is_set(text_file):
    model = make_llama()
    weights = weights_of(model)
    few = {"mom2_dataset": str(text_file), "mom2_max_tokens": 30}
    for name in ("ROME", "MEMIT"):
        with pytest.raises(EditFailedError, match=r"singular.*mom2_ridge"):
            apply(name, model, EGYPT, **few)
        assert same_weights(weights_of(model), weights)
        _, originals = apply(name, model, EGYPT, **few, mom2_ridge=1e-2)
        model.load_state_dict({**weights_of(model), **originals})


def test_no_null_space_is_an_error():
    with pytest.raises(EditFailedError, match=r"no null space.*nullspace_threshold"):
        null_space_projection(random_moment(), 1e-12, 3)


def test_easyedits_statistics_are_read(tmp_path):
    moment = random_moment(64, 500)
    name = "model.layers.0.mlp.down_proj"
    file = tmp_path / "tiny" / "wikipedia_stats" / f"{name}_float32_mom2_100000.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, **{"mom2.mom2": (moment.matrix * 500).numpy(), "mom2.count": 500, "sample_size": 100000})
    model = make_llama()
    model.config._name_or_path = "someone/tiny"
    found = find_moments(model, layers=[0], stats_dir=str(tmp_path), mom2_dataset="wikipedia")
    torch.testing.assert_close(found[0].matrix, moment.matrix)
    found = find_moments(model, layers=[0], mom2_file=str(file).replace("layers.0", "layers.{}"))
    assert found[0].count == 500


def test_where_statistics_were_looked_for_is_said(tmp_path, caplog):
    model = make_llama()
    model.config._name_or_path = "someone/tiny"
    wanted = {"layers": [1], "stats_dir": str(tmp_path / "stats")}
    name = "wikipedia_stats/model.layers.1.mlp.down_proj_float32_mom2_100000.npz"
    with pytest.raises(HparamsError) as caught:  # no such data set, and nothing in the folder
        find_moments(model, **wanted, mom2_dataset="no/such/text")
    for folder in ("tiny", "someone_tiny"):
        assert str(tmp_path / "stats" / folder / name.replace("wikipedia", "no/such/text")) in str(caught.value)
    assert "neither a text file or folder nor" in str(caught.value)
    with caplog.at_level(logging.WARNING):
        find_moments(model, **wanted)  # collected, and said
        assert "gave no statistics for layer(s) 1" in caplog.text
        find_moments(model, **wanted, mom2_dataset=None, mom2_max_tokens=300)
        assert "`mom2_dataset`, which is not set" in caplog.text
        model.config._name_or_path = ""
        find_moments(model, **wanted)
        assert "no name of its own" in caplog.text


def test_statistics_of_another_model_are_refused(tmp_path):
    model, file = make_llama(), tmp_path / "x.npz"
    write_moment(file, random_moment(12), "of some model")
    with pytest.raises(ModelError, match=r"12×12.*64.*another model"):
        read_moment(file, 64, 0)
    write_moment(tmp_path / "0.npz", random_moment(64, 99), "of some model")
    with pytest.raises(ModelError, match="another model"):
        find_moments(model, layers=[0], mom2_file=str(tmp_path / "{}.npz"))
    weights = weights_of(model)
    with pytest.raises(ModelError, match="another model"):
        apply("ROME", model, EGYPT, mom2_file=str(tmp_path / "{}.npz"))
    assert same_weights(weights_of(model), weights)
    file.write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"mom2\.mom2"):
        read_moment(file, 64, 0)
    with pytest.raises(ModelError, match="does not exist"):
        read_moment(tmp_path / "none.npz", 64, 0)


def test_alphaedits_projection_files(tmp_path):
    projection = null_space_projection(random_moment(64, 500), 1.0, 0)
    file = tmp_path / "null_space_project.pt"
    torch.save(projection[None], file)
    report = LocateEditReport()
    apply("AlphaEdit", make_llama(), EGYPT, P_loc=str(file), report=report)
    assert "null_space_project.pt" in report.statistics[0]
    torch.save(projection[:5, :5][None], file)
    with pytest.raises(ModelError, match=r"1×5×5.*1×64×64"):
        apply("AlphaEdit", make_llama(), EGYPT, P_loc=str(file))
    file.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="P_loc"):
        apply("AlphaEdit", make_llama(), EGYPT, P_loc=str(file))


def test_projections_come_back_from_the_cache():
    found = []
    for _ in range(2):
        model = make_llama()
        apply("AlphaEdit", model, EGYPT, stats_cache=True)
        found.append(weights_of(model))
    assert same_weights(*found)
