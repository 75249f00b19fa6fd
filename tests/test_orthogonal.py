"""Orthogonal edits: an adapter of a sequence reads no direction that an earlier one reads, whichever the optimiser."""

from __future__ import annotations

import logging

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, edit, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import EditFailedError, HparamsError
from causaledit.hosts.lookup import get_method
from causaledit.methods.call import edit_in_place
from causaledit.methods.method import EditSequence, StoredMemory
from causaledit.methods.shared.orthogonal import Directions
from causaledit.support.progress import SilentProgress

PERU = edit("Peru", "The capital of {} is", "What is the capital of Peru?", "Lima", "Cusco")
FURTHER = {
    "CausalEdit": {"bootstrap_max_steps": 4, "distill_steps_base": 2},
    "CaKE": {"max_steps": 4},
    "EtCon": {"proximal_steps": 4, "consolidate_steps": 1},
    "LoRA": {"steps": 4, "lora_dropout": 0.0},
    "StoryDistill": {"max_steps": 4},
}
METHODS = list(FURTHER)


def apply(name, model, sequence, request, **changes):
    method = get_method(name)
    values = {**FAST[name], **FURTHER[name], "lora_rank": 2, "orthogonal_edits": True, **changes}
    edited = edit_in_place(
        method, model, make_tokenizer(), [dict(request)],
        method.load_hparams()(model_name=(model, make_tokenizer()), **values),
        progress=SilentProgress(), sequence=sequence,
    )  # fmt: skip
    assert edited.keep() is model


def taken(sequence, name):
    """By layer: the directions that the sequence's edits read so far, [directions, inputs]."""
    return {layer: torch.cat(rows) for layer, rows in directions_of(sequence, name).state()["taken"].items()}


def directions_of(sequence, name):
    return sequence.memory(f"{name}: directions", Directions)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("orthogonal", [True, False])
def test_what_an_earlier_edit_reads_a_later_one_leaves_alone(name, orthogonal):
    sequence, model = EditSequence(), make_llama()
    apply(name, model, sequence, EGYPT)
    earlier, before = taken(sequence, name), weights_of(model)
    apply(name, model, sequence, NORWAY, orthogonal_edits=orthogonal)
    shares = []
    for layer, rows in earlier.items():
        change = model.get_parameter(f"{layer}.weight").detach() - before[f"{layer}.weight"]
        if change.norm() > 0:
            shares.append(float((change @ rows.T).norm() / change.norm()))
    assert len(shares) > 5
    assert max(shares) < 1e-3 if orthogonal else max(shares) > 0.05


@pytest.mark.parametrize("name", METHODS)
def test_the_first_edit_of_a_sequence_is_the_same_to_the_bit(name):
    weights = []
    for orthogonal in (False, True):
        model = make_llama()
        apply(name, model, EditSequence(), EGYPT, orthogonal_edits=orthogonal)
        weights.append(weights_of(model))
    assert same_weights(*weights)


def test_an_independent_edit_and_one_without_it_note_nothing():
    sequence = EditSequence()
    apply("LoRA", make_llama(), None, EGYPT)
    apply("LoRA", make_llama(), sequence, EGYPT, orthogonal_edits=False)
    assert sequence.stored() == {}


def test_an_edit_that_fails_takes_nothing_and_leaves_no_hook():
    sequence, model = EditSequence(), make_llama()
    apply("LoRA", model, sequence, EGYPT)
    before, weights = taken(sequence, "LoRA"), weights_of(model)
    with pytest.raises(EditFailedError):
        apply("LoRA", model, sequence, NORWAY, learning_rate=1e30, steps=8)
    after = taken(sequence, "LoRA")
    assert all(torch.equal(after[layer], rows) for layer, rows in before.items())
    assert same_weights(weights, weights_of(model))
    weight = torch.nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.ones(2, 3)
    torch.optim.SGD([weight], lr=1.0).step()  # the block's hook would read the model's adapters
    assert len(directions_of(sequence, "LoRA")) == 1


def test_a_sequence_goes_on_in_another_process():
    sequence, model = EditSequence(), make_llama()
    apply("LoRA", model, sequence, EGYPT)
    assert isinstance(directions_of(sequence, "LoRA"), StoredMemory)
    again, other = EditSequence(), make_llama()
    apply("LoRA", other, EditSequence(), EGYPT)
    again.go_on(sequence.stored())
    apply("LoRA", model, sequence, NORWAY)
    apply("LoRA", other, again, NORWAY)
    assert same_weights(weights_of(model), weights_of(other))


def test_a_full_layer_gives_up_its_oldest_directions(caplog):
    directions = Directions()
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            directions.take({"layer": torch.eye(8)[2 * number : 2 * number + 2]})
    kept = torch.cat(directions.state()["taken"]["layer"]).abs()
    assert kept.sum(0).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert "smaller `lora_rank`" in caplog.text
    bases = directions.bases({"layer": torch.ones(1, 8), "elsewhere": torch.ones(1, 8)})
    assert list(bases) == ["layer"]
    cleared = torch.ones(1, 8) - (torch.ones(1, 8) @ bases["layer"].T) @ bases["layer"]
    assert cleared.tolist() == [[1, 1, 0, 0, 0, 0, 1, 1]]


def test_rank_that_moves_cannot_be_held_apart():
    with pytest.raises(HparamsError, match=r"`orthogonal_edits`.*adalora"):
        get_method("LoRA").load_hparams()(model_name="x", lora_type="adalora", orthogonal_edits=True)


def test_published_files_leave_it_off():
    for name in METHODS:
        assert get_method(name).load_hparams().from_hparams("smollm2-135m-instruct").orthogonal_edits is False
