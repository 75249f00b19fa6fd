"""The page to look at an edit: what it shows and refuses, and that it works in a browser, on this machine alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading

import browser
import httpx
import pytest
from conftest import EGYPT, FAST, NORWAY, REPOSITORY, make_llama, make_tokenizer
from peft import LoraConfig, get_peft_model
from published import REFUTING, RIGHT, MarkJudge, case, locality, write

from causaledit.errors import MetricsError, ModelError, PageError, RunError
from causaledit.facts.requests import request_from_dict
from causaledit.judges.registry import get_judge
from causaledit.methods.method import MethodReport
from causaledit.methods.registry import METHODS
from causaledit.models.loading import load_model
from causaledit.models.saving import save_result
from causaledit.probes.asking import Prober
from causaledit.ui.asking import BeforeAndAfter
from causaledit.ui.marks import pieces
from causaledit.ui.page import build
from causaledit.ui.serving import address_of, open_port, server_of
from causaledit.ui.target import look_at, models_of

pytest.importorskip("gradio", reason="gradio is not installed")

ATTACK = "</div><script>window.attacked = 1</script><img src=x onerror='window.attacked = 1'> {{ 7*7 }} ${8*8}"
OLD_AND_NEW = "It is Alexandria. No, that is wrong: it is not Alexandria. The capital of Egypt is Cairo."


def save(folder, base, model, *, narrative=EGYPT["narrative"], said=OLD_AND_NEW):
    """A result as a method saves it: two edits, one of them probed."""
    report = MethodReport(
        requests=[request_from_dict({**EGYPT, "narrative": narrative}), request_from_dict(NORWAY)],
        losses={"train": [2.5, 1.0, 0.25]},
    )
    answer = {"kind": "question", "prompt": EGYPT["question"]}
    metrics = [
        {"pre": {"answers": [{**answer, "response": "Cairo."}]}, "post": {"answers": [{**answer, "response": said}]}}
    ]
    hparams = METHODS["LoRA"].load_hparams()(**FAST["LoRA"], model_name=str(base))
    save_result(folder, model, make_tokenizer(), hparams, report, metrics)
    return folder


@pytest.fixture(scope="module")
def edited(tmp_path_factory, tiny_model_folder):
    """A whole model that answers otherwise than its base."""
    return save(tmp_path_factory.mktemp("edited") / "model", tiny_model_folder, make_llama(seed=1))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_model_folder):
    """An adapter that changes what its base model says."""
    peft = get_peft_model(make_llama(), LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    return save(tmp_path_factory.mktemp("edited") / "adapter", tiny_model_folder, peft)


@pytest.fixture
def run(tmp_path):
    cases = [case(n, 1 + n % 2, hop_wise=REFUTING if n else RIGHT) for n in range(3)]
    cases[0]["post"]["locality_probe"] = [locality("The longest river?", "the Nile", "[PASS] the Nile", "[FAIL] no")]
    return write(tmp_path / "run", cases).parent


def test_the_base_is_found_from_another_working_folder(tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_model_folder.parent)
    folder = save(tmp_path / "model", tiny_model_folder.name, make_llama(seed=1))
    monkeypatch.chdir(tmp_path)
    assert look_at(folder, get_judge("rule")).base == str(tiny_model_folder)


# ---- what is shown -------------------------------------------------------------------------------------------------
def test_a_saved_model_shows_its_edits_probes_and_history(edited, tiny_model_folder):
    shown = look_at(edited, get_judge("rule"))
    assert (shown.base, shown.edited, shown.part_label) == (str(tiny_model_folder), str(edited), "edit")
    egypt, norway = shown.parts
    assert egypt.edits[0].narrative == EGYPT["narrative"] and egypt.edits[0].new == "Alexandria"
    [probe] = egypt.probes
    before, after = probe.responses
    assert (before.when, before.text, before.verdicts[0]["grade"]) == ("before", "Cairo.", "FAIL")
    assert after.verdicts[1]["self_refutation"] is True and "not Alexandria" in after.verdicts[1]["negation_evidence"]
    assert not norway.probes and norway.problem
    assert [entry.edit.subject for entry in shown.history] == ["Egypt", "Norway"]
    assert "train: 2.50 → 0.25 in 3 steps" in shown.history[0].note


def test_a_history_begins_with_the_edits_before(tmp_path, edited):
    again = save(tmp_path / "again", edited, make_llama(seed=2))
    card = json.loads((again / "causaledit.json").read_text())
    before = json.loads((edited / "causaledit.json").read_text())
    (again / "causaledit.json").write_text(json.dumps({**card, "earlier": [{**before, "method": "ROME"}]}))
    shown = look_at(again, get_judge("rule"))
    assert [(one.method, one.edit.subject) for one in shown.history] == [
        ("ROME", "Egypt"), ("ROME", "Norway"), ("LoRA", "Egypt"), ("LoRA", "Norway"),
    ]  # fmt: skip
    assert shown.base == str(edited) and len(shown.parts) == 2


def test_a_run_shows_its_cases_with_verdicts_and_both_answers_of_locality(run):
    shown = look_at(run, MarkJudge())
    assert [part.name.partition(".")[0] for part in shown.parts] == ["0", "1", "2"]
    assert len(shown.parts[1].edits) == 2 and shown.base is None and "causaledit edit --save" in shown.silence
    [kept] = [probe for probe in shown.parts[0].probes if probe.kind.startswith("Locality")]
    assert [(said.when, said.verdicts[0]["grade"]) for said in kept.responses] == [
        ("before", "PASS"),
        ("after", "FAIL"),
    ]
    refuting = [
        v for p in shown.parts[1].probes for said in p.responses for v in said.verdicts if v.get("self_refutation")
    ]
    assert {verdict["about"] for verdict in refuting} == {"Norway", "Egypt"}
    assert models_of(shown, own_base=True) is None


def test_the_pieces_of_a_response_are_the_response():
    said = "It is Alexandria.  It is not  Alexandria, it is Cairo."
    verdict = {
        "task": "refutation", "assertion_evidence": "It is Alexandria.", "negation_evidence": "is NOT Alexandria",
        "final_evidence": "nowhere in it",
    }  # fmt: skip
    found = pieces(said, [verdict])
    assert "".join(piece.text for piece in found) == said
    marked = {piece.text: piece.kinds for piece in found if piece.kinds}
    assert marked == {"It is Alexandria.": ("assertion",), "is not  Alexandria": ("negation",)}


# ---- asking --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["edited", "adapter"])
def test_both_models_answer_as_each_does_alone(kind, request, tiny_model_folder):
    folder = request.getfixturevalue(kind)
    models = models_of(look_at(folder, get_judge("rule")), own_base=True, device="cpu")
    alone = [load_model(place, device="cpu") for place in (tiny_model_folder, folder)]
    expected = [Prober(one.tokenizer, max_new_tokens=8).ask(one.model, [EGYPT["question"]])[0] for one in alone]
    said = [
        models.before(EGYPT["question"], max_new_tokens=8),
        models.after(EGYPT["question"], max_new_tokens=8),
        models.before(EGYPT["question"], max_new_tokens=8),
    ]
    assert said == [*expected, expected[0]] and expected[0] != expected[1]


def test_another_base_is_taken_where_it_is_given(edited, tmp_path):
    make_llama(seed=3).save_pretrained(tmp_path / "other")
    make_tokenizer().save_pretrained(tmp_path / "other")
    shown = look_at(edited, get_judge("rule"), base=str(tmp_path / "other"))
    assert shown.base == str(tmp_path / "other")
    with pytest.raises(ModelError, match=r"The model before the edit: .*nowhere.*--base"):
        BeforeAndAfter.load(str(edited), "./nowhere", own_base=False, device="cpu")


def test_a_question_that_leaves_no_room_is_refused(edited):
    models = models_of(look_at(edited, get_judge("rule")), own_base=True, device="cpu")
    with pytest.raises(ModelError, match="context window"):
        models.after("Where? " * 4000, max_new_tokens=8)


# ---- what is refused -----------------------------------------------------------------------------------------------
def test_what_is_neither_a_model_nor_a_run_is_refused(tmp_path, edited, tiny_model_folder, run):
    (tmp_path / "begun" / "meta").mkdir(parents=True)
    (tmp_path / "begun" / "meta" / "run_args.json").write_text("{}")
    empty = write(tmp_path / "empty", []).parent
    failed = write(
        tmp_path / "failed", [{"case_id": 1, "requested_rewrite": [], "error": "EditFailedError: nan"}]
    ).parent
    gone = save(tmp_path / "orphan", tmp_path / "gone", make_llama())
    for target, error, words in (
        (tmp_path / "nowhere", ModelError, "does not exist"),
        (tmp_path, ModelError, "neither a saved model"),
        (tiny_model_folder, ModelError, "--base"),
        (tmp_path / "begun", RunError, "no case yet"),
        (empty, MetricsError, "holds no case"),
        (failed, MetricsError, r"none of its 1 case has predictions \(EditFailedError: nan\)"),
    ):
        with pytest.raises(error, match=words) as caught:
            look_at(target, get_judge("rule"))
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"before the edit: .*gone.*does not exist.*--base"):
        models_of(look_at(gone, get_judge("rule")), own_base=True, device="cpu")
    with pytest.raises(RunError, match="--base"):
        look_at(run, get_judge("rule"), base="other")
    look_at(tiny_model_folder, get_judge("rule"), base=str(edited))  # edited elsewhere, without a card


def test_a_port_that_is_taken_is_refused():
    with open_port(0) as first:
        number = first.getsockname()[1]
        with pytest.raises(PageError, match=f"--port {number} cannot be used"):
            open_port(number)
        assert first.getsockname()[0] == "127.0.0.1"


def test_the_command_serves_until_ctrl_c_and_refuses_in_one_line(edited, tmp_path):
    def command(*arguments):
        return [sys.executable, "-m", "causaledit", "show", *map(str, arguments)]

    options = {"cwd": REPOSITORY, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        command(edited, "--port", 0, "--device", "cpu"), env={**os.environ, "COLUMNS": "80"}, **options
    )
    try:
        line = process.stdout.readline()
        [address] = re.findall(r"http://127\.0\.0\.1:\d+/", line) or [pytest.fail(line + process.stderr.read())]
        assert httpx.get(address, trust_env=False).status_code == 200
        assert httpx.get(address, headers={"Host": "elsewhere.example"}, trust_env=False).status_code == 400
        port = int(address.rstrip("/").rpartition(":")[2])
        taken = subprocess.run(command(edited, "--port", port), timeout=120, check=False, **options)
        assert taken.returncode == 2 and f"--port {port}" in taken.stderr and len(taken.stderr.splitlines()) == 1
        with httpx.stream("GET", f"{address}gradio_api/heartbeat/a-tab", timeout=60, trust_env=False) as listening:
            assert listening.status_code == 200  # as an open tab does
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and not stderr.strip(), stderr


# ---- in a browser --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chromium():
    with browser.started() as running:
        yield running


@contextlib.contextmanager
def served(shown):
    with open_port(0) as opened:
        server = server_of(build(shown, models_of(shown, own_base=True, device="cpu")))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        try:
            yield address_of(opened)
        finally:
            server.should_exit = True
            thread.join(60)


@contextlib.contextmanager
def on_page(chromium, shown, width):
    with (
        served(shown) as address,
        browser.silent_tab(
            chromium, lambda url: url.startswith(address), viewport={"width": width, "height": 900}
        ) as tab,
    ):
        tab.goto(address)
        tab.locator(".ce-head h1").wait_for()
        yield tab


def fits(tab):
    return tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("width", [1200, 400])
def test_a_question_is_answered_side_by_side_in_chromium(chromium, edited, width):
    from playwright.sync_api import expect

    with on_page(chromium, look_at(edited, get_judge("rule")), width) as tab:
        expect(tab.locator(".ce-head h1")).to_have_text("model")
        expect(tab.locator("#facts blockquote")).to_have_text(EGYPT["narrative"])
        tab.get_by_role("button", name="Why?").click()
        expect(tab.locator("#question textarea")).to_have_value(re.compile("what is the capital of Egypt.*Why is that"))
        tab.locator("#ask").click()
        for place in ("#before", "#after"):
            expect(tab.locator(f"{place} .ce-text")).to_be_visible(timeout=browser.PATIENCE)
        assert tab.locator("#before .ce-text").inner_text() != tab.locator("#after .ce-text").inner_text()
        before, after = (tab.locator(place).bounding_box() for place in ("#before", "#after"))
        assert (before["y"] == after["y"]) == (width == 1200)  # one under the other where it is narrow
        tab.locator(".ce-probe summary").first.click()
        expect(tab.locator(".ce-probe mark.negation").first).to_contain_text("not Alexandria")
        assert tab.locator(".ce-history li").count() == 2
        assert fits(tab)


def test_the_cases_of_a_run_are_chosen_in_chromium(chromium, run):
    from playwright.sync_api import expect

    with on_page(chromium, look_at(run, MarkJudge()), 400) as tab:
        expect(tab.get_by_text("nothing can be asked here")).to_be_visible()
        assert tab.locator("#question").count() == 0
        tab.locator("#part input").click()
        tab.get_by_role("option", name="1. Norway").click()
        expect(tab.locator("#facts .ce-edit")).to_have_count(2)
        expect(tab.locator(".ce-badge.alarm").first).to_have_text("⚠ refutes itself")
        tab.evaluate("document.querySelectorAll('#probes details').forEach((item) => { item.open = true; })")
        assert fits(tab)


def test_hostile_texts_do_nothing_in_chromium(chromium, tmp_path, tiny_model_folder):
    from playwright.sync_api import expect

    folder = save(tmp_path / "hostile", tiny_model_folder, make_llama(seed=1), said=ATTACK)
    card = json.loads((folder / "causaledit.json").read_text())
    card["method"] = card["requests"][0]["narrative"] = card["requests"][0]["subject"] = ATTACK
    (folder / "causaledit.json").write_text(json.dumps(card))
    with on_page(chromium, look_at(folder, get_judge("rule")), 1200) as tab:
        expect(tab.locator("#facts blockquote")).to_have_text(ATTACK)
        tab.evaluate("document.querySelectorAll('#probes details').forEach((item) => { item.open = true; })")
        expect(tab.locator("#probes .ce-text").last).to_have_text(ATTACK)
        assert tab.evaluate("window.attacked === undefined")
        assert tab.locator("#facts img, #probes img, #probes script, .ce-head img, #history img").count() == 0
