"""One contract for every method in every host: what an edit changes, and all that it must leave alone.

The methods are those of the registry; a new one needs its fast hyper-parameters in conftest.FAST. The hosts
are the embedded one and, where EASYEDIT_HOME names a checkout, EasyEdit itself. A test of what not every method has
(weights that change, an adapter, draws) names those it is about. The calls that hosts make are in
`test_contract_calls.py`.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from conftest import (
    EGYPT,
    MODELS,
    NORWAY,
    answer_log_probability,
    make_gpt2,
    make_llama,
    make_tokenizer,
    same_weights,
    weights_of,
)
from contract import (
    SEED_MATTERS,
    Fault,
    adapter_methods,
    columns,
    edited_once,
    edited_weights,
    editor_for,
    every_host,
    every_method,
    hparams_for,
    methods,
    run,
    state_of,
    surroundings,
    unusual,
    weight_methods,
)
from easyedit_files import needs_easyedit

from causaledit.hosts.token_accuracy import predicted_tokens, token_accuracy
from causaledit.methods.ike.prompts import FACT
from causaledit.models.chat import in_context_prefix


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # EasyEdit writes ./logs
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))


# ---- what an edit does -----------------------------------------------------------------------------
@weight_methods
@every_host
@pytest.mark.parametrize("architecture", MODELS)
def test_the_new_answers_probability_rises(method, host, architecture):
    model, tokenizer = MODELS[architecture](), make_tokenizer()
    before = answer_log_probability(model, tokenizer, EGYPT)
    hparams = hparams_for(method, model, tokenizer, learns=True, lora_target_modules=["all-linear"])
    editor = editor_for(host, hparams)
    _, edited, _ = run(editor, EGYPT, sequential_edit=True)
    assert answer_log_probability(edited, tokenizer, EGYPT) > before + 0.5  # nats per token
    assert type(edited) is type(model)  # a plain model again, no adapter around it


@every_method
@every_host
def test_metrics(method, host):
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    metrics, _, _ = run(editor, EGYPT, NORWAY)
    assert [item["case_id"] for item in metrics] == [0, 1]
    for item, request in zip(metrics, (EGYPT, NORWAY), strict=True):
        assert item["requested_rewrite"] == request
        for phase in ("pre", "post"):
            for key in ("rewrite_acc", "rephrase_acc"):
                assert all(0 <= value <= 1 for value in item[phase][key])
                assert len(item[phase][key]) == 1
            assert len(item[phase]["portability"]["hop_acc"]) == 1
        assert len(item["post"]["locality"]["neighbour_acc"]) == 1


@every_method
@every_host
def test_the_hosts_own_arguments(method, host):
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    metrics, _, _ = editor.edit(**columns(EGYPT, NORWAY))
    assert len(metrics) == 2
    assert metrics[1]["requested_rewrite"]["subject"] == "Norway"
    assert 0 <= metrics[1]["post"]["locality"]["neighbour_acc"][0] <= 1


@every_method
@every_host
def test_sequential_edits_accumulate(method, host):
    both = edited_once(host, method.name, "Egypt", "Norway")
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    run(editor, EGYPT, sequential_edit=True)
    first = state_of(editor.model)
    run(editor, NORWAY, sequential_edit=True)
    assert same_weights(state_of(editor.model), both)  # one call of two edits is two calls of one
    assert not same_weights(first, both)
    assert not same_weights(both, edited_once(host, method.name, "Norway"))  # the first edit is still in there


@every_method
@every_host
def test_a_batch_of_one_is_an_edit(method, host):
    if not method.batched:
        pytest.skip(f"{method.name} does not edit batches")
    found = []
    for call in ("edit", "batch_edit"):
        editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
        metrics, _, _ = getattr(editor, call)(**columns(EGYPT), sequential_edit=True)
        found.append((state_of(editor.model), metrics[0]["post"]["rewrite_acc"], metrics[0]["post"]["locality"]))
    assert same_weights(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert found[0][2]["neighbour_acc"] == found[1][2]["neighbour_acc"]


@every_method
@every_host
def test_a_batch_holds_all_its_edits(method, host):
    if not method.batched:
        pytest.skip(f"{method.name} does not edit batches")
    model, tokenizer = make_llama(), make_tokenizer()
    before = [answer_log_probability(model, tokenizer, r) for r in (EGYPT, NORWAY)]
    weights = weights_of(model)
    editor = editor_for(host, hparams_for(method, model, tokenizer, learns=True, batch_size=2))
    metrics, _, _ = editor.batch_edit(**columns(EGYPT, NORWAY))
    assert len(metrics) == 2
    assert same_weights(weights_of(editor.model), weights)
    _, edited, _ = editor.batch_edit(**columns(EGYPT, NORWAY), sequential_edit=True)
    if not method.changes_weights:
        assert all(r["target_new"] in in_context_prefix(edited) for r in (EGYPT, NORWAY))
        return
    after = [answer_log_probability(edited, tokenizer, r) for r in (EGYPT, NORWAY)]
    assert after[0] > before[0] + 0.3
    assert after[1] > before[1] + 0.3


@every_method
@every_host
def test_same_seed_same_edit(method, host):
    first = edited_weights(host, method, EGYPT, seed=1)
    torch.rand(3)  # the caller's own draws must not matter
    assert same_weights(first, edited_weights(host, method, EGYPT, seed=1))
    if method in SEED_MATTERS:
        assert not same_weights(first, edited_weights(host, method, EGYPT, seed=2))


# ---- what an edit leaves alone ---------------------------------------------------------------------
@every_method
@every_host
@pytest.mark.parametrize("make", [make_llama, make_gpt2], ids=["llama", "gpt2"])
def test_after_an_edit_the_model_is_as_it_was(method, host, make):
    editor = editor_for(
        host, hparams_for(method, unusual(make()), make_tokenizer(), lora_target_modules=["all-linear"])
    )
    weights, around = weights_of(editor.model), surroundings(editor.model)
    run(editor, EGYPT, NORWAY)
    assert same_weights(weights_of(editor.model), weights)
    assert surroundings(editor.model) == around


@weight_methods
@every_host
@pytest.mark.parametrize("error", [RuntimeError("fault"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_after_a_fault_the_model_is_as_it_was(method, host, error):
    editor = editor_for(host, hparams_for(method, unusual(make_llama()), make_tokenizer()))
    weights, around = weights_of(editor.model), surroundings(editor.model)
    with Fault(editor.model, error), pytest.raises(type(error)):
        run(editor, EGYPT)
    assert same_weights(weights_of(editor.model), weights)
    assert surroundings(editor.model) == around
    run(editor, EGYPT)  # and it can go on
    assert same_weights(weights_of(editor.model), weights)


@every_method
@every_host
def test_independent_edits_are_independent(method, host):
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    run(editor, EGYPT)
    run(editor, NORWAY, sequential_edit=True)
    assert same_weights(state_of(editor.model), edited_once(host, method.name, "Norway"))


@every_method
@every_host
def test_inputs_are_not_changed(method, host):
    tokenizer = make_tokenizer()
    tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token = "right", "right", None
    model = make_llama()
    hparams = hparams_for(method, model, tokenizer, device="auto")
    fields = {f.name: getattr(hparams, f.name) for f in dataclasses.fields(hparams)}
    plain = copy.deepcopy({name: value for name, value in fields.items() if name != "model_name"})
    requests = [copy.deepcopy(EGYPT)]
    editor = editor_for(host, hparams)
    editor.edit_requests(requests, verbose=False)
    assert requests == [EGYPT]
    assert {f.name: getattr(hparams, f.name) for f in dataclasses.fields(hparams) if f.name != "model_name"} == plain
    assert hparams.model_name == (model, tokenizer)
    assert (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token) == ("right", "right", None)


@adapter_methods
@every_host
def test_an_adapter_instead_of_merged_weights(method, host):
    from peft import PeftModel

    tokenizer = make_tokenizer()
    before = answer_log_probability(make_llama(), tokenizer, NORWAY)
    editor = editor_for(host, hparams_for(method, make_llama(), tokenizer, learns=True, merge_adapter=False))
    weights = weights_of(editor.model)
    run(editor, EGYPT)
    assert same_weights(weights_of(editor.model), weights)  # the host goes on with a plain model
    _, edited, copied = run(editor, NORWAY)
    assert isinstance(edited, PeftModel)
    assert not copied
    assert same_weights(weights_of(editor.model), weights)
    assert answer_log_probability(edited, tokenizer, NORWAY) > before + 0.5
    alone = editor_for(host, hparams_for(method, make_llama(), tokenizer, learns=True, merge_adapter=False))
    _, expected, _ = run(alone, NORWAY)
    assert same_weights(weights_of(edited), weights_of(expected))  # nothing of the first edit is in it


@adapter_methods
@every_host
def test_sequential_adapters_accumulate(method, host):
    merged = edited_once(host, method.name, "Egypt", "Norway")
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer(), merge_adapter=False))
    _, edited, _ = run(editor, EGYPT, NORWAY, sequential_edit=True)
    found = edited.merge_and_unload() if hasattr(edited, "peft_config") else edited
    assert same_weights(state_of(found), merged)


# ---- edits in context ------------------------------------------------------------------------------
@every_host
@methods(lambda method: not method.changes_weights)
def test_an_edit_in_context_is_heard_by_every_prompt(method, host):
    model, tokenizer = make_llama(), make_tokenizer()
    weights, before = weights_of(model), answer_log_probability(model, tokenizer, EGYPT)
    editor = editor_for(host, hparams_for(method, model, tokenizer))
    metrics, edited, originals = run(editor, EGYPT)
    assert not originals
    assert same_weights(weights_of(edited), weights)
    assert EGYPT["target_new"] in in_context_prefix(edited)
    assert not in_context_prefix(editor.model)  # the host goes on with the plain model
    assert answer_log_probability(edited, tokenizer, EGYPT) != before
    assert answer_log_probability(editor.model, tokenizer, EGYPT) == before
    said = FACT.format(cloze=EGYPT["prompt"], new=EGYPT["target_new"])
    [(choices, target)] = predicted_tokens(model, tokenizer, [f"{said}\n{EGYPT['prompt']}"], [EGYPT["target_new"]])
    assert metrics[0]["post"]["rewrite_acc"] == token_accuracy([(choices, target)])


# ---- a GPU -----------------------------------------------------------------------------------------
@every_method
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu(method):
    model, tokenizer = make_llama().cuda(), make_tokenizer()
    weights, before = weights_of(model), answer_log_probability(model, tokenizer, EGYPT)
    editor = editor_for("embedded", hparams_for(method, model, tokenizer, learns=True, device="cuda"))
    run(editor, EGYPT)
    assert same_weights(weights_of(editor.model), weights)
    _, edited, _ = run(editor, EGYPT, sequential_edit=True)
    assert next(edited.parameters()).device.type == "cuda"
    if method.changes_weights:
        assert answer_log_probability(edited, tokenizer, EGYPT) > before + 0.5


# ---- EasyEdit alone --------------------------------------------------------------------------------
@every_method
@needs_easyedit
def test_registering_twice_is_harmless(method):
    from causaledit.hosts import find_base_editor
    from causaledit.hosts.easyedit.patches import register

    editor = register()
    import easyeditor
    from easyeditor.editors.batch_editor import BatchEditor
    from easyeditor.util.alg_dict import ALG_DICT

    names, init, calls = set(ALG_DICT), editor.__init__, (editor.edit_requests, editor.batch_edit)
    assert register() is editor is find_base_editor() is easyeditor.BaseEditor
    assert set(ALG_DICT) == names
    assert method.name in names
    assert editor.__init__ is init  # not wrapped a second time
    assert (editor.edit_requests, editor.batch_edit) == calls
    # what EasyEdit lacks is added, what it has stays its own
    ours = method.name not in ("AlphaEdit", "FT", "IKE", "LoRA", "MEMIT", "ROME")
    assert (ALG_DICT[method.name].__module__ == "causaledit.hosts.easyedit.patches") is ours
    if ours:
        assert BatchEditor.is_batchable_method(method.name) is method.batched
        assert getattr(easyeditor, method.load_hparams().__name__) is method.load_hparams()
    assert BatchEditor.is_batchable_method("MEMIT")
    assert not BatchEditor.is_batchable_method("ROME")
    edited_weights("easyedit", method, EGYPT)


@needs_easyedit
def test_easyedits_own_methods_stay_as_they_were():
    from causaledit.hosts.easyedit.patches import register

    register()
    from easyeditor.models.ft import apply_ft_to_model
    from easyeditor.models.ike import apply_ike_to_model
    from easyeditor.models.lora import apply_lora_to_model
    from easyeditor.models.rome import apply_rome_to_model
    from easyeditor.util.alg_dict import ALG_DICT

    theirs = {"ROME": apply_rome_to_model, "FT": apply_ft_to_model, "LoRA": apply_lora_to_model}
    for name, function in {**theirs, "IKE": apply_ike_to_model}.items():
        assert ALG_DICT[name] is function


@every_method
@needs_easyedit
def test_both_hosts_make_the_same_edit(method):
    found = [edited_once(host, method.name, "Egypt", "Norway") for host in ("embedded", "easyedit")]
    assert same_weights(*found)


@every_method
@needs_easyedit
def test_both_hosts_measure_alike(method):
    found = []
    for host in ("embedded", "easyedit"):
        editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
        metrics, _, _ = run(editor, EGYPT, NORWAY)
        found.append(
            [
                (m[phase]["rewrite_acc"], m[phase]["rephrase_acc"], m[phase]["portability"]["hop_acc"])
                for m in metrics
                for phase in ("pre", "post")
            ]
            + [m["post"]["locality"]["neighbour_acc"] for m in metrics]
        )
    assert found[0] == found[1]
