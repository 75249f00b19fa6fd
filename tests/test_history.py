"""The edits of a saved model as a history: kept in its card, contradicted aloud, listed, taken back to the bit."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, make_gpt2, make_tokenizer
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import CausalEditError
from causaledit.methods.call import edit_in_place
from causaledit.methods.registry import METHODS
from causaledit.models.history import cards_of, made_edits, read_card
from causaledit.models.loading import load_from_hparams
from causaledit.models.saving import save_result
from causaledit.probes.asking import Prober

WRITING = sorted(name for name, method in METHODS.items() if name in FAST and method.changes_weights)


def edit_and_save(method, base, out, request, *, keep=True, **changes):
    """One edit as a script makes it: load, edit, save."""
    hparams = METHODS[method].load_hparams()(**{**FAST[method], "model_name": str(base), **changes})
    model, tokenizer = load_from_hparams(hparams)
    report = METHODS[method].load_report()()
    edited = edit_in_place(METHODS[method], model, tokenizer, [request], hparams, report=report)
    originals = edited.weights_copy() if keep else None
    save_result(out, edited.model, tokenizer, hparams, report, [], originals=originals)
    return out


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments):
    done = invoke(*arguments)
    assert isinstance(done.exception, CausalEditError), done.output
    assert len(str(done.exception).splitlines()) == 1
    return str(done.exception)


def same_tensors(a, b):
    """Whether two folders hold the same tensors: names, types, shapes and bits."""
    one, other = (load_file(folder / "model.safetensors") for folder in (a, b))
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory, tiny_model_folder):
    """A model with three edits, by three methods, and the folders that they left."""
    folder = tmp_path_factory.mktemp("chain")
    first = edit_and_save("FT", tiny_model_folder, folder / "first", EGYPT)
    second = edit_and_save("ROME", first, folder / "second", NORWAY)
    adapter = edit_and_save("LoRA", second, folder / "adapter", {**EGYPT, "target_new": "Giza"}, merge_adapter=False)
    return tiny_model_folder, first, second, adapter


# ---- undo, to the bit ------------------------------------------------------------------------------
@pytest.mark.parametrize("method", WRITING)
def test_undo_gives_the_base_back(method, tmp_path, tiny_model_folder):
    out = edit_and_save(method, tiny_model_folder, tmp_path / "out", EGYPT)
    assert not same_tensors(tiny_model_folder, out)
    done = invoke("undo", out, "--save", tmp_path / "back")
    assert done.exit_code == 0, done.output
    assert "edit 1 taken back" in done.stdout
    assert same_tensors(tiny_model_folder, tmp_path / "back")
    assert not (tmp_path / "back" / "causaledit.json").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_comes_back_in_its_own_type(dtype, tmp_path):
    make_gpt2().to(dtype).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    out = edit_and_save("FT", tmp_path / "base", tmp_path / "out", EGYPT)
    assert load_file(out / "model.safetensors")["transformer.wte.weight"].dtype == torch.float32
    assert invoke("undo", out, "--save", tmp_path / "back").exit_code == 0
    assert same_tensors(tmp_path / "base", tmp_path / "back")


def test_undo_goes_back_step_by_step_or_at_once(chain, tmp_path):
    base, first, second, adapter = chain
    for model, number, expected in (
        (adapter, 3, second),
        (adapter, 2, first),
        (adapter, 1, base),
        (second, 2, first),
        (second, 1, base),
    ):
        back = tmp_path / f"{model.name}-{number}"
        done = invoke("undo", model, "--edit", number, "--save", back)
        assert done.exit_code == 0, done.output
        assert same_tensors(expected, back)
        assert read_card(back) == read_card(expected)
        kept = [{file.name for file in (folder / "originals").glob("*")} for folder in (expected, back)]
        assert kept[0] == kept[1]
    # what came back is a model like any other: its own last edit can be taken back too
    done = invoke("undo", tmp_path / "adapter-3", "--save", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert same_tensors(first, tmp_path / "again")


# ---- undo refuses ----------------------------------------------------------------------------------
def test_undo_says_what_is_wrong(chain, tmp_path):
    base, first, second, _ = chain
    new = ("--save", tmp_path / "new")
    for arguments, words in (
        ((second, "--edit", 3, *new), ["--edit 3", "2 edits", "1 to 2"]),
        ((second, "--edit", 0, *new), ["--edit 0", "1 to 2"]),
        ((base, *new), [str(base), "causaledit.json"]),
        ((tmp_path / "none", *new), [str(tmp_path / "none"), "does not exist"]),
        ((second, "--save", first), ["--save", str(first), "not empty"]),
    ):
        text = refusal("undo", *arguments)
        assert all(word in text for word in words), text
        assert not (tmp_path / "new").exists()


def test_undo_needs_the_originals_of_every_edit_it_takes_back(chain, tmp_path):
    _, first, *_ = chain
    unkept = edit_and_save("ROME", first, tmp_path / "unkept", NORWAY, keep=False)
    for options in ((), ("--edit", "1")):
        text = refusal("undo", unkept, *options, "--save", tmp_path / "back")
        assert "originals of edit 2" in text
        assert "--keep-originals" in text
        assert str(first) in text  # the model before it is still there
    said = invoke("history", unkept).stdout
    assert "none can be undone" in said
    assert "originals of edit 2" in said


def test_undo_knows_weights_that_were_changed_since(chain, tmp_path):
    _, first, *_ = chain
    trained = shutil.copytree(first, tmp_path / "trained")
    tensors = load_file(trained / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, trained / "model.safetensors", {"format": "pt"})
    assert "not those that its last edit left" in refusal("undo", trained, "--save", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_undo_of_an_adapter_needs_the_base_it_was_made_on(chain, tmp_path):
    base, _, _, adapter = chain
    moved = shutil.copytree(adapter, tmp_path / "moved")
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    assert str(base) in refusal("undo", moved, "--save", tmp_path / "back")
    said = invoke("history", moved).stdout  # the reason is the base, not originals that were not kept
    assert "none can be undone" in said
    assert str(base) in said


def test_history_says_how_to_undo_in_a_line_that_can_be_run(chain, tmp_path):
    folder = shutil.copytree(chain[1], tmp_path / "my model")
    command = invoke("history", folder).stdout.split("can be undone: causaledit ")[1]
    done = invoke(*shlex.split(command.replace("DIR", shlex.quote(str(tmp_path / "back again")))))
    assert done.exit_code == 0, done.output
    assert same_tensors(chain[0], tmp_path / "back again")


def test_a_history_on_the_hub_is_undone_from_a_folder(chain, monkeypatch):
    monkeypatch.setattr("causaledit.models.history.hub_file", lambda *_, **__: chain[1] / "causaledit.json")
    said = invoke("history", "owner/edited").stdout
    assert "Alexandria" in said
    assert "hf download owner/edited" in said
    assert "not kept" not in said


# ---- the history and the card ----------------------------------------------------------------------
def test_a_card_keeps_every_edit(chain):
    base, first, second, adapter = chain
    cards = cards_of(read_card(adapter))
    assert [card["method"] for card in cards] == ["FT", "ROME", "LoRA"]
    assert cards[:2] == cards_of(read_card(second))
    assert [(made.number, made.request.subject, made.request.target_new) for made in made_edits(cards)] == [
        (1, "Egypt", "Alexandria"),
        (2, "Norway", "Bergen"),
        (3, "Egypt", "Giza"),
    ]
    assert cards_of(read_card(base)) == []
    text = ModelCard.load(adapter / "README.md").text
    assert f"| 1 | {cards[0]['created'][:10]} | FT | Egypt | The capital of {{}} is | Cairo | Alexandria |" in text
    assert "This is edit 3" in text
    assert "`originals/` keeps" not in text
    assert "`originals/` keeps" in ModelCard.load(second / "README.md").text
    assert "Edits before these" not in ModelCard.load(first / "README.md").text


def test_the_hubs_base_model_stays_that_of_the_first_edit(tmp_path, tiny_model_folder):
    base = shutil.copytree(tiny_model_folder, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: owner/base\ntags: [causaledit]\n---\n# Edited\n")
    card = ModelCard.load(edit_and_save("FT", base, tmp_path / "out", EGYPT) / "README.md")
    assert (card.data.base_model, card.data.license) == ("owner/base", "mit")
    adapter = edit_and_save("LoRA", base, tmp_path / "adapter", EGYPT, merge_adapter=False)
    assert ModelCard.load(adapter / "README.md").data.base_model is None  # its base is the edited model


def test_history_lists_the_edits_in_80_columns(chain, monkeypatch):
    adapter = chain[-1]
    monkeypatch.setenv("COLUMNS", "80")
    done = invoke("history", adapter)
    assert done.exit_code == 0, done.output
    table = [line for line in done.stdout.splitlines() if "│" in line or "┃" in line]
    assert all(len(line) <= 80 for line in table)
    assert {"Alexandria", "Bergen", "Giza"} <= {word for line in table for word in line.replace("│", " ").split()}
    assert f"causaledit undo {adapter} --edit 1" in done.stdout

    data = json.loads(invoke("history", adapter, "--json").stdout)
    assert [(item["edit"], item["method"], item["new"]) for item in data] == [
        (1, "FT", "Alexandria"),
        (2, "ROME", "Bergen"),
        (3, "LoRA", "Giza"),
    ]
    assert all(item["undoable"] for item in data)
    assert data[0]["narrative"] == EGYPT["narrative"]


def test_a_model_without_history_is_one_line(tmp_path, tiny_model_folder):
    assert str(tiny_model_folder) in refusal("history", tiny_model_folder)
    assert "no/such" in refusal("history", "no/such")
    assert "'no-such' does not exist" in refusal("history", "no-such")


# ---- new edits on an edited model ------------------------------------------------------------------
@pytest.fixture(scope="module")
def ft_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("hparams") / "ft.yaml"
    lines = {"alg_name": "FT", **FAST["FT"], "steps": 1}
    file.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return file


def asked(model, subject, prompt, new, file, *options):
    fact = ("--subject", subject, "--prompt", prompt, "--old", "Rome", "--new", new)
    return ("edit", "--model", model, *fact, "--method", "FT", "--hparams", file, "--device", "cpu", *options)


@pytest.mark.parametrize(
    ("subject", "prompt", "new", "warned"),
    [
        ("Egypt", "The capital of {} is", "Luxor", True),
        ("Egypt", "The city that is the capital of {} is", "Luxor", True),  # the same relation
        ("Egypt", "The capital of {} is", "Alexandria", False),
        ("Cuba", "The capital of {} is", "Luxor", False),
        ("Egypt", "The official language of {} is", "Greek", False),
    ],
)
def test_a_contradiction_is_warned_of(subject, prompt, new, warned, chain, ft_file):
    _, first, *_ = chain
    done = invoke(*asked(first, subject, prompt, new, ft_file, "--plan"))
    assert done.exit_code == 0, done.output
    assert ("contradicts edit 1" in " ".join(done.stdout.split())) is warned
    assert "with 1 edit so far" in " ".join(done.stdout.split())


def test_the_last_answer_is_what_is_contradicted(chain, tmp_path, ft_file):
    _, _, second, _ = chain
    third = edit_and_save("FT", second, tmp_path / "third", {**EGYPT, "target_new": "Giza"})
    back = " ".join(invoke(*asked(third, "Egypt", "The capital of {} is", "Giza", ft_file, "--plan")).stdout.split())
    assert "contradicts" not in back
    away = " ".join(
        invoke(*asked(third, "Egypt", "The capital of {} is", "Alexandria", ft_file, "--plan")).stdout.split()
    )
    assert "contradicts edit 3" in away


def test_an_old_answer_that_the_history_knows_need_not_be_given(chain, ft_file):
    _, first, *_ = chain
    asking = list(asked(first, "Egypt", "The capital of {} is", "Luxor", ft_file, "--plan"))
    given = asking.index("--old")
    del asking[given : given + 2]
    assert "Egypt is: Alexandria → Luxor" in " ".join(invoke(*asking).stdout.split())
    elsewhere = [{"Egypt": "Cuba"}.get(word, word) for word in asking]
    assert "Cuba is: (asked of the model) → Luxor" in " ".join(invoke(*elsewhere).stdout.split())


def test_edit_goes_on_with_the_history(chain, tmp_path, ft_file):
    _, first, *_ = chain
    out = tmp_path / "out"
    done = invoke(*asked(first, "Egypt", "The capital of {} is", "Luxor", ft_file, "--keep-originals", "--save", out))
    assert done.exit_code == 0, done.output
    assert "has 1 edit so far" in done.stderr
    assert "contradicts edit 1" in done.stderr
    size = sum(value.numel() * 4 for value in load_file(out / "originals" / "edit-2.safetensors").values())
    said = next(line for line in done.stderr.splitlines() if "--keep-originals" in line)
    assert f"{size / 2**20:.2f} MiB" in said
    assert [card["requests"][0]["target_new"] for card in cards_of(read_card(out))] == ["Alexandria", "Luxor"]
    assert invoke("undo", out, "--edit", 1, "--save", tmp_path / "back").exit_code == 0
    assert same_tensors(chain[0], tmp_path / "back")


def test_an_edited_embedded_model_still_has_its_own_hparams(chain, tmp_path):
    folder = shutil.copytree(chain[1], tmp_path / "again")
    fact = ("edit", "--model", folder, "--method", "ROME", "--subject", "Cuba", "--prompt", "The capital of {} is")
    assert "--hparams is missing" in refusal(*fact, "--new", "Luxor", "--plan")
    card = json.loads((folder / "causaledit.json").read_text())
    card["hparams"]["model_name"] = "smollm2-135m-instruct"
    (folder / "causaledit.json").write_text(json.dumps(card))
    # that of the bundled file, which this model is too small for
    assert "layer 7" in refusal(*fact, "--new", "Luxor", "--plan")


@pytest.mark.parametrize("option", ["--keep-originals", "--save"])
def test_a_result_that_the_disk_cannot_hold_is_refused(option, chain, tmp_path, ft_file, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)  # a full disk cannot be provoked here
    monkeypatch.setattr(Prober, "ask", lambda *_: pytest.fail("the model was asked first"))
    options = [option, "--save", tmp_path / "out"] if option == "--keep-originals" else [option, tmp_path / "out"]
    text = refusal(*asked(chain[1], "Cuba", "The capital of {} is", "Luxor", ft_file, *options))
    assert text.startswith(option)
    assert not (tmp_path / "out").exists()


def test_what_edit_cannot_do_is_one_line(chain, tmp_path, ft_file, monkeypatch):
    base = chain[0]
    fact = asked(base, "Cuba", "The capital of {} is", "Luxor", ft_file)
    assert "--save is missing" in refusal(*fact)
    assert "--adapter-only" in refusal(*fact, "--save", tmp_path / "out", "--adapter-only")
    ike = ["IKE" if item == "FT" else "smollm2-135m-instruct" if item == ft_file else item for item in fact]
    assert "--method IKE" in refusal(*ike, "--save", tmp_path / "out")
    adapter = [chain[-1] if item == base else item for item in fact]
    for option in (("--save", tmp_path / "out"), ("--plan",)):
        assert "is an adapter" in refusal(*adapter, *option)
    ft_file = ft_file.with_name("ninth.yaml")
    ft_file.write_text("alg_name: FT\ndevice: cpu\nlayers: [9]\n")
    monkeypatch.setattr(Prober, "ask", lambda *_: pytest.fail("the model was asked first"))
    assert "9" in refusal(*asked(base, "Cuba", "The capital of {} is", "Luxor", ft_file, "--save", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_damaged_history_is_one_line(tmp_path, tiny_model_folder):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "damaged")
    (folder / "causaledit.json").write_text(json.dumps({"method": "FT", "requests": [{"prompt": ""}]}))
    assert "damaged" in refusal("history", folder)


def test_models_of_before_have_a_history_of_one_edit(tmp_path, tiny_model_folder):
    folder = edit_and_save("FT", tiny_model_folder, tmp_path / "old", EGYPT, keep=False)
    card = json.loads((folder / "causaledit.json").read_text())
    for key in ("origin", "earlier"):
        del card[key]
    (folder / "causaledit.json").write_text(json.dumps(card))
    again = edit_and_save("FT", folder, tmp_path / "new", NORWAY)
    assert [made.number for made in made_edits(cards_of(read_card(again)))] == [1, 2]
    assert invoke("undo", again, "--save", tmp_path / "back").exit_code == 0
    assert same_tensors(folder, tmp_path / "back")
    assert ModelCard.load(tmp_path / "back" / "README.md").data.tags
