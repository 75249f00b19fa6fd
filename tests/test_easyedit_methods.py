"""EasyEdit's own methods through our calls: its files through its loader, everything about the model put back."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import (
    EGYPT,
    NORWAY,
    REPOSITORY,
    answer_log_probability,
    make_llama,
    make_tokenizer,
    same_weights,
    smollm2_folder,
    weights_of,
)
from contract import Fault, surroundings, unusual
from easyedit_files import FIGURES, HOME, file_for, method_with

from causaledit.errors import HostError, HparamsError
from causaledit.hosts.easyedit import own_methods
from causaledit.hosts.easyedit.files import plain_name
from causaledit.hosts.lookup import choose_method, get_method
from causaledit.methods.call import edit_in_place
from causaledit.methods.in_turn import edit_all
from causaledit.methods.method import EditSequence, MethodReport
from causaledit.models.generation import generate_texts
from causaledit.models.loading import load_model
from causaledit.models.network import network_of
from causaledit.probes.asking import Prober

pytestmark = pytest.mark.skipif(not HOME, reason="EASYEDIT_HOME names no EasyEdit checkout")

every_method = pytest.mark.parametrize("name", FIGURES)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))


# ---- files -----------------------------------------------------------------------------------------
def checkout_files():
    files = sorted(Path(HOME or "nowhere").glob("hparams/*/*.yaml"))
    no_editing = ("Steer", "DoLa", "DeCo")  # its other half; one of these files is no YAML
    return [pytest.param(f, id=f"{f.parent.name}/{f.stem}") for f in files if f.parent.name not in no_editing]


@pytest.mark.parametrize("file", checkout_files())
def test_a_file_of_the_checkout_loads_as_easyedit_loads_it(file):
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    named = next((key for key in own_methods() if plain_name(key) == plain_name(str(data.get("alg_name", "")))), None)
    if named is None:
        pytest.skip(f"{data.get('alg_name')} is no method of its editor")
    ours = get_method(named, host="easyedit").load_hparams()
    theirs = ours.__mro__[1]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            expected = theirs.from_hparams(str(file))
    except Exception:  # its own class refuses it: a file of a multimodal method
        with pytest.raises(HparamsError, match=file.name):
            ours.from_hparams(file)
        return
    found = ours.from_hparams(file)
    assert isinstance(found, theirs)
    assert {key: value for key, value in vars(found).items() if key != "fp16"} == {
        key: value for key, value in vars(expected).items() if key != "fp16"
    } or named == "SimIE"
    assert found.to_dict()["model_name"] == expected.model_name


def test_what_its_loader_rewrites_arrives():
    wise = get_method("WISE").load_hparams().from_hparams("llama3-8b")
    data = yaml.safe_load((Path(HOME) / "hparams/WISE/llama3-8b.yaml").read_text())
    assert [wise.alpha, wise.beta, wise.gamma] == data["act_margin"]
    ultra = get_method("ULTRAEDIT").load_hparams().from_hparams("qwen2.5-7b")
    assert ultra.model_class == "AutoModelForCausalLM"
    simie = get_method("SimIE").load_hparams().from_hparams("llama3-8b")
    assert simie.base_hparams.alg_name == simie.base_method == "ROME"


def test_settings_of_ours_in_its_files_are_kept():
    kind = get_method("easyedit:MEMIT").load_hparams()
    made = kind.from_dict({**kind.from_hparams("smollm2-135m-instruct").to_dict(), "seed": 7})
    assert (made.mom2_max_tokens, made.seed) == (10000, 7)
    assert kind.from_dict(made.to_dict()).to_dict() == made.to_dict()
    with pytest.raises(HparamsError, match="mom2_max_tokens"):  # nothing for a method that reads no text
        get_method("easyedit:WISE").load_hparams().from_dict(file_for("WISE", mom2_max_tokens=3))


def test_folder_spelling_and_alg_name_both_serve():
    assert get_method("UltraEdit") == get_method("ULTRAEDIT") == get_method("easyedit:UltraEdit")
    method, hparams = choose_method("UltraEdit", model_type="qwen2.5-7b")
    assert (method.name, hparams.alg_name) == ("ULTRAEDIT", "ULTRAEDIT")
    with pytest.raises(HostError, match=r"'ULTRAEDITS'.*Did you mean 'ULTRAEDIT'"):
        get_method("ULTRAEDITS")
    with pytest.raises(HostError, match=r"'easyedti'.*Did you mean 'easyedit'"):
        get_method("easyedti:ROME")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_iterr": 3}, "unknown key 'n_iterr' for EasyEdit's WISE. Did you mean 'n_iter'"),
        ({"act_margin": None}, "also needs 'act_margin'"),
        ({"mask_ratio": None}, "also needs.*mask_ratio.*EasyEdit's format"),
        ({"save_freq": 3}, "divisible by save_freq"),
        ({"alg_name": "GRACE"}, "'GRACE'.*for 'WISE'"),
    ],
)
def test_a_bad_file_is_one_clear_error(change, words, tmp_path):
    data = {key: value for key, value in file_for("WISE", **change).items() if value is not None}
    if "n_iterr" in change:
        del data["n_iter"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(HparamsError, match=f"(?s)mine.yaml.*{words}"):
        get_method("WISE").load_hparams().from_hparams("mine")


# ---- the file decides ------------------------------------------------------------------------------
def test_bundled_files_run_ours(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for name in ("ROME", "MEMIT", "AlphaEdit", "LoRA", "FT", "IKE", "ICE", "CausalEdit"):
        for label in ("smollm2-135m-instruct", "qwen2.5-7b-instruct"):
            method, hparams = choose_method(name, model_type=label)
            assert method.host == "embedded", name
            assert hparams.alg_name == name


def test_the_files_format_decides_whose_method_runs(tmp_path):
    folder = tmp_path / "hparams" / "ROME"
    folder.mkdir(parents=True)
    (folder / "theirs.yaml").write_text(yaml.safe_dump(file_for("ROME")))
    (folder / "ours.yaml").write_text("alg_name: ROME\nmodel_name: x\nlayers: [1]\n")
    assert choose_method("ROME", model_type="theirs")[0].host == "easyedit"
    assert choose_method("ROME", model_type="ours")[0].host == "embedded"
    assert choose_method("ROME", model_type="x", path=str(folder / "theirs.yaml"))[0].host == "easyedit"
    for name, host in (("embedded:ROME", "auto"), ("ROME", "embedded")):
        method, hparams = choose_method(name, model_type="theirs", host=host)
        assert method.host == "embedded"
        assert hparams.layers == [1]
    assert choose_method("easyedit:ROME", model_type="theirs", host="embedded")[0].host == "easyedit"
    with pytest.raises(HparamsError, match=r"ours.*EasyEdit's format"):
        choose_method("easyedit:ROME", model_type="ours")
    assert choose_method("ROME", model_type="llama3-8b")[0].host == "easyedit"  # the checkout's alone
    with pytest.raises(HparamsError, match="smollm2"):
        choose_method("ROME", model_type="no-such-file")


@pytest.mark.parametrize("name", ["WISE", "GRACE", "ULTRAEDIT", "R-ROME", "DPO", "LoRA", "ROME", "MEMIT", "AlphaEdit"])
def test_bundled_files_in_easyedits_format(name):
    method, hparams = choose_method(f"easyedit:{name}", model_type="smollm2-135m-instruct")
    assert (method.host, hparams.model_name) == ("easyedit", "smollm2-135m-instruct")


# ---- edits -----------------------------------------------------------------------------------------
@every_method
def test_an_edit_is_asked(name):
    method, hparams = method_with(name)
    model, tokenizer, report = unusual(make_llama()), make_tokenizer(), MethodReport()
    edited = edit_in_place(method, model, tokenizer, [dict(EGYPT)], hparams, report=report)
    prober = Prober(tokenizer, max_new_tokens=4)
    answers = prober.ask(edited.model, ["The capital of Egypt is", "Who?"])
    assert answers == [prober.ask(edited.model, [text])[0] for text in ("The capital of Egypt is", "Who?")]
    assert report.tally.seconds["edit"] > 0
    assert report.trained_prompts == ["The capital of Egypt is"]
    edited.undo()


def test_ultraedits_half_precision_is_undone_too():
    method, hparams = method_with("ULTRAEDIT", half=True)
    model = make_llama()
    weights = weights_of(model)
    edited = edit_in_place(method, model, make_tokenizer(), [dict(EGYPT)], hparams)
    assert model.dtype == torch.float16
    edited.undo()
    assert same_weights(weights_of(model), weights)
    assert model.dtype == torch.float32


@every_method
@pytest.mark.parametrize("error", [RuntimeError("fault"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_after_a_fault_the_model_is_as_it_was(name, error):
    method, hparams = method_with(name)
    model = unusual(make_llama())
    weights, around = weights_of(model), surroundings(model)
    with Fault(model, error, number=1 if name == "ULTRAEDIT" else 3), pytest.raises(type(error)):
        edit_in_place(method, model, make_tokenizer(), [dict(EGYPT)], hparams)
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around


@every_method
def test_several_edits_are_made_and_undone_together(name):
    method, hparams = method_with(name)
    model, tokenizer, report = unusual(make_llama()), make_tokenizer(), MethodReport()
    weights, around = weights_of(model), surroundings(model)
    edited = edit_all(method, model, tokenizer, [dict(EGYPT), dict(NORWAY)], hparams, report=report)
    assert [request.subject for request in report.requests] == ["Egypt", "Norway"]
    edited.undo()
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around


@pytest.mark.slow
@pytest.mark.parametrize("name", ["R-ROME", "ROME"])
def test_the_new_answer_becomes_likelier_in_smollm2(name, monkeypatch):
    """A model of random weights has no place where a fact is kept: there both make the answer less likely."""
    monkeypatch.delenv("CAUSALEDIT_CACHE")
    folder = smollm2_folder()
    method, hparams = choose_method(f"easyedit:{name}", model_type="smollm2-135m-instruct")
    model, tokenizer = load_model(str(folder), device="cpu")
    hparams.device = "cpu"
    before = answer_log_probability(model, tokenizer, EGYPT)
    edited = edit_in_place(method, model, tokenizer, [dict(EGYPT)], hparams)
    assert answer_log_probability(edited.plain, tokenizer, EGYPT) > before / 2
    edited.undo()
    assert answer_log_probability(model, tokenizer, EGYPT) == before


@pytest.mark.parametrize("name", ["LoRA", "DPO"])
def test_the_new_answer_becomes_likelier(name):
    method, hparams = method_with(name)
    model, tokenizer = make_llama(), make_tokenizer()
    before = answer_log_probability(model, tokenizer, EGYPT)
    edited = edit_in_place(method, model, tokenizer, [dict(EGYPT)], hparams)
    assert answer_log_probability(edited.plain, tokenizer, EGYPT) > before + 0.03
    edited.undo()
    assert answer_log_probability(model, tokenizer, EGYPT) == before


def test_a_fault_in_the_second_of_two_edits_undoes_the_first():
    method, hparams = method_with("GRACE")
    model = unusual(make_llama())
    weights, around = weights_of(model), surroundings(model)
    with Fault(model, KeyboardInterrupt(), number=11), pytest.raises(KeyboardInterrupt):
        edit_all(method, model, make_tokenizer(), [dict(EGYPT), dict(NORWAY)], hparams)
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around


def test_a_wrapped_model_is_asked_a_row_at_a_time():
    method, hparams = method_with("WISE")
    model, tokenizer = make_llama(), make_tokenizer()
    edited = edit_in_place(method, model, tokenizer, [dict(EGYPT)], hparams)
    assert network_of(edited.model) is model
    rows = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    generate_texts(edited.model, tokenizer, ["one", "two two", "three"], max_new_tokens=2)
    handle.remove()
    edited.undo()
    assert set(rows) == {1}


# ---- statistics ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["MEMIT", "AlphaEdit", "ROME"])
def test_second_moments_of_a_text_stand_in_for_wikipedia(name, tmp_path, words):
    from easyeditor.models.memit import memit_main
    from easyeditor.models.rome import compute_u

    def changed(text):
        method, hparams = method_with(name, mom2_adjustment=True, mom2_dataset=text, mom2_n_samples=40)
        model = make_llama()
        edited = edit_in_place(method, model, make_tokenizer(), [dict(EGYPT)], hparams)
        weights = weights_of(model)
        edited.undo()
        return weights

    other = tmp_path / "other.txt"
    other.write_text(Path(words).read_text(encoding="utf-8").upper(), encoding="utf-8")
    memit_main.COV_CACHE["the user's own"] = torch.ones(1)
    first = changed(words)
    assert same_weights(changed(words), first)  # from the cache, too
    assert not same_weights(changed(str(other)), first)
    assert list(memit_main.COV_CACHE) == ["the user's own"]
    assert not compute_u.inv_mom2_cache
    memit_main.COV_CACHE.clear()
    assert not list(Path().glob("*.pt"))  # nothing is left in the user's folder


def test_a_tied_output_layer_is_found():
    # named_parameters, where EasyEdit looks, names a tied weight once: as the embeddings'
    method, hparams = method_with("MEMIT")
    for tied in (True, False):
        model = make_llama(tie_word_embeddings=tied)
        assert edit_in_place(method, model, make_tokenizer(), [dict(EGYPT)], hparams).parameters_changed() > 0
    assert hparams.lm_head_module == "lm_head"


# ---- module variables ------------------------------------------------------------------------------
def test_edits_leave_nothing_in_easyedits_modules():
    from easyeditor.models.r_rome import r_rome_main
    from easyeditor.models.wise import WISE as wise

    model, tokenizer = make_llama(), make_tokenizer()
    wise.edit_history.append("the user's own")
    for name in ("WISE", "R-ROME"):
        method, hparams = method_with(name)
        edit_in_place(method, model, tokenizer, [dict(EGYPT)], hparams).undo()
        assert wise.edit_history == ["the user's own"]
        assert r_rome_main.CONTEXT_TEMPLATES_CACHE is None
    wise.edit_history.clear()


def test_the_edits_of_a_sequence_share_what_easyedit_keeps():
    from easyeditor.models.wise import WISE as wise

    method, hparams = method_with("WISE")
    model, tokenizer, sequence, seen = make_llama(), make_tokenizer(), EditSequence(), []
    original = wise.WISE.edit

    def counted(self, *args, **kwargs):
        seen.append(len(wise.edit_history))
        return original(self, *args, **kwargs)

    wise.WISE.edit = counted
    try:
        first = edit_in_place(method, model, tokenizer, [dict(EGYPT)], hparams, sequence=sequence)
        second = edit_in_place(method, first.keep(), tokenizer, [dict(NORWAY)], hparams, sequence=sequence)
        second.undo(), first.undo()
        edit_in_place(method, model, tokenizer, [dict(EGYPT)], hparams).undo()
    finally:
        wise.WISE.edit = original
    assert seen == [0, 1, 0]


# ---- request keys ----------------------------------------------------------------------------------
def asked_with(name, request, monkeypatch, **changes):
    """What EasyEdit's function gets of a request."""
    from easyeditor.util import alg_dict

    seen = []

    def function(model, tok, requests, hparams, **kwargs):
        seen.extend(requests)
        return model, {}

    monkeypatch.setitem(alg_dict.ALG_DICT, name, function)
    method = get_method(name, host="easyedit")
    hparams = type("H", (), {"alg_name": name, "device": "cpu", "model_name": "x", "seed": 1, **changes})()
    edit_in_place(method, make_llama(), make_tokenizer(), [request], hparams)
    return seen[0]


def test_request_keys_reach_the_method(monkeypatch):
    given = {**EGYPT, "loc_prompt": "Who? Me", "target_neg": "Cairo!", "relation_id": "P36", "question": "Which?"}
    got = asked_with("WISE", given, monkeypatch)
    assert {key: got[key] for key in ("loc_prompt", "target_neg", "relation_id", "question")} == {
        key: given[key] for key in ("loc_prompt", "target_neg", "relation_id", "question")
    }


def test_wise_gets_an_unrelated_question_and_dpo_the_old_answer(monkeypatch):
    probe = EGYPT["locality"]["neighbour"]
    assert asked_with("WISE", EGYPT, monkeypatch)["loc_prompt"] == f"{probe['prompt']} {probe['ground_truth']}"
    bare = {key: EGYPT[key] for key in ("prompt", "subject", "target_new")}
    question, answer = asked_with("WISE", bare, monkeypatch)["loc_prompt"].split("?", 1)
    assert question
    assert answer.strip()
    assert asked_with("DPO", EGYPT, monkeypatch)["target_neg"] == EGYPT["ground_truth"]
    assert asked_with("DPO", bare, monkeypatch)["target_neg"]
    assert asked_with("KN", bare, monkeypatch)["ground_truth"]
    assert "loc_prompt" not in asked_with("ROME", bare, monkeypatch)


@pytest.mark.parametrize(
    ("name", "figures", "words"),
    [
        ("IKE", {"use_icl_examples": True}, r"train_ds.*use_icl_examples: false.*embedded:IKE"),
        ("MEND", {"archive": "results/mend"}, r"'results/mend'.*EditTrainer"),
        ("SERAC", {"archive": None}, r"archive.*EditTrainer"),
        ("DINM", {}, "unsafe prompts"),
        ("FT-Api", {}, "behind an API"),
        ("DeepEdit-Api", {}, "behind an API"),
    ],
)
def test_what_a_method_lacks_is_said_before_anything_runs(name, figures, words, monkeypatch):
    with pytest.raises(HostError, match=words):
        asked_with(name, EGYPT, monkeypatch, **figures)


def test_ike_puts_its_facts_before_the_prompts():
    method = get_method("IKE", host="easyedit")
    hparams = method.load_hparams().from_hparams("llama3-8b")
    hparams.device, hparams.use_icl_examples = "cpu", False
    model = make_llama()
    edited = edit_all(method, model, make_tokenizer(), [dict(EGYPT), dict(NORWAY)], hparams)
    text = edited.model.in_context_prefix
    assert text.index("The capital of Egypt is Alexandria") < text.index("The capital of Norway is Bergen")
    assert edited.parameters_changed() == 0
    assert edited.undo() is model
    assert torch.equal(model.lm_head.weight, make_llama().lm_head.weight)


# ---- runs ------------------------------------------------------------------------------------------
def test_both_hosts_methods_stand_in_one_table(tmp_path, tiny_model_folder):
    from causaledit.comparison.execution import execute_comparison
    from causaledit.comparison.plan import make_compare_plan
    from causaledit.comparison.tables import markdown
    from causaledit.judges.registry import get_judge
    from causaledit.runs.arguments import RunArguments
    from causaledit.support.files import read_object

    mini = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))
    (tmp_path / "two.json").write_text(json.dumps([c for c in mini if len(c["requested_rewrite"]) == 2][:1]))
    for name in ("ROME", "GRACE", "WISE", "LoRA"):
        (tmp_path / "hparams" / name).mkdir(parents=True)
        own = file_for(name, n_iter=2, model_name="./hugging_cache/x") if "n_iter" in FIGURES[name] else file_for(name)
        (tmp_path / "hparams" / name / "tiny.yaml").write_text(yaml.safe_dump(own))
    (tmp_path / "ours.yaml").write_text("alg_name: ROME\nmodel_name: x\nlayers: [1]\nv_num_grad_steps: 2\n")
    given = RunArguments(
        editing_method="GRACE", datatype="two.json", model_type="tiny", output_root="out", run_id="c", device="cpu",
        max_new_tokens=3, model=str(tiny_model_folder), probes=("hop",),
    )  # fmt: skip
    judge = get_judge("rule")
    names = ("easyedit:ROME", "embedded:ROME", "GRACE", "WISE", "LoRA", "PreEdited")
    plan = make_compare_plan(names, given, judge=judge.identity, hparams=["embedded:ROME=ours.yaml"])
    rows = {row.method: row for row in execute_comparison(plan, judge)}
    assert {name: row.problem for name, row in rows.items()} == dict.fromkeys(names)
    assert [row.method_of for row in rows.values()] == ["easyedit", "embedded", *["easyedit"] * 3, None]
    assert [name for name, row in rows.items() if row.in_turn] == ["easyedit:ROME", "GRACE", "WISE"]
    assert all(row.metrics for row in rows.values())
    written = markdown(read_object(plan.folder / "compare.json"))
    assert "edits in turn" in written
    assert "methods of EasyEdit: easyedit:ROME, GRACE, WISE, LoRA" in written
    assert (tmp_path / "out/two/tiny/easyedit.ROME").is_dir()
