"""Values: which output at the look-up token makes the model give the new answer."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from causaledit.errors import EditFailedError
from causaledit.methods.shared.locate_edit.contexts import Contexts, flat
from causaledit.methods.shared.locate_edit.frozen import FrozenRows, in_passes
from causaledit.methods.shared.locate_edit.subjects import TokenRow, locate, locate_span, target_tokens
from causaledit.models.hooks import altered, hidden, narrowed, replayed, run_until, watched
from causaledit.models.layout import by_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.shared.locate_edit.hparams import LocateEditHyperParams
    from causaledit.models.layout import Layout
    from causaledit.support.progress import ProgressSink

ESSENCE = "{} is a"


@dataclass
class Value:
    """What optimisation found for one edit.

    Attributes:
        initial: `(hidden,)` output at the look-up token of the bare prompt, before the edit.
        delta: `(hidden,)` change of it; `initial + delta` is v* (ROME) or z (MEMIT).
        losses: The loss at each evaluation.
    """

    initial: torch.Tensor
    delta: torch.Tensor
    losses: list[float] = field(default_factory=list)

    @property
    def target(self) -> torch.Tensor:
        """v* = initial + δ."""
        return self.initial.to(self.delta.dtype) + self.delta


@dataclass
class _Job:
    """The rows of one edit: its contexts' prompts with the answer's beginning, then the essence prompt."""

    rows: list[TokenRow]
    predict: list[int]  # per prompt row: index of the token that predicts the answer's first token
    target: list[int]

    @property
    def length(self) -> int:
        """Tokens from the look-up on in the longest row."""
        return max(len(row.ids) - row.at for row in self.rows)


def optimise_values(
    model: Any,
    tokenizer: Any,
    layout: Layout,
    edits: Sequence[EditRequest],
    contexts: Contexts,
    hparams: LocateEditHyperParams,
    *,
    layer: int,
    at_projection: bool,
    progress: ProgressSink,
    share: bool = True,
) -> list[Value]:
    """Optimise each edit's value by Adam on one vector δ (ROME eq. 4, MEMIT eq. 16).

    loss = mean over contexts of −log p(answer | context + prompt) / tokens
           + `kl_factor` · KL(new ‖ old) of the next token at the subject in "<subject> is a"
           + `v_weight_decay` · ‖δ‖ / ‖initial‖²   (the form of the papers' code)
    and ‖δ‖ is clamped to `clamp_norm_factor` · ‖initial‖. An edit stops below `v_stop_loss`.

    Args:
        layer: Where δ is added.
        at_projection: At the output of the MLP's projection (ROME), otherwise of the whole layer (MEMIT).
        share: False computes every pass in full (for tests).

    Raises:
        EditFailedError: A loss is not finite.
    """
    jobs = [_job(tokenizer, edit, contexts, hparams.fact_token) for edit in edits]
    chunks = _chunks([job.length for job in jobs], hparams.v_batch_requests)
    values: dict[int, Value] = {}
    progress.start(f"layer {layer}: values", hparams.v_num_grad_steps * len(chunks))
    for chunk in chunks:
        found = _optimise(model, layout, [jobs[i] for i in chunk], hparams, layer, at_projection, progress, share)
        values.update(zip(chunk, found, strict=True))
    progress.finish()
    return [values[i] for i in range(len(jobs))]


def _chunks(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Groups of at most `most` edits that are optimised side by side, those of like length together."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[start : start + most] for start in range(0, len(order), most)]


def _job(tokenizer: Any, edit: EditRequest, contexts: Contexts, fact_token: str) -> _Job:
    target = target_tokens(tokenizer, edit)
    rows, predict = [], []
    for template in flat(contexts):
        row = locate(tokenizer, template, edit, fact_token)
        predict.append(len(row.ids) - 1)
        rows.append(TokenRow(row.ids + target[:-1], row.at))
    essence = ESSENCE.replace("{}", edit.subject)
    rows.append(locate_span(tokenizer, essence, 0, len(edit.subject), fact_token))
    return _Job(rows, predict, target)


def _optimise(
    model: Any,
    layout: Layout,
    jobs: list[_Job],
    hparams: LocateEditHyperParams,
    layer: int,
    at_projection: bool,
    progress: ProgressSink,
    share: bool,
) -> list[Value]:
    edited = layout.projection_module(model, layer) if at_projection else layout.layer_module(model, layer)
    rows = _Rows(model, layout, jobs, hparams, layer, edited, share)
    initial = rows.initial  # (jobs, hidden)
    norms = initial.float().norm(dim=1)
    delta = torch.zeros_like(initial, dtype=torch.float32, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=hparams.v_lr)
    found: dict[int, Value] = {}
    losses: list[list[float]] = [[] for _ in jobs]
    active = list(range(len(jobs)))
    for step in range(hparams.v_num_grad_steps):
        last = step == hparams.v_num_grad_steps - 1  # it is evaluated and not stepped from
        optimizer.zero_grad()
        now = torch.zeros(len(active))
        with torch.set_grad_enabled(not last):
            for term in rows.losses(delta):  # one pass at a time: its activations are freed before the next
                if not last:
                    term.sum().backward()
                now += term.detach().float().cpu()
            decay = hparams.v_weight_decay * delta[active].norm(dim=1) / norms[active] ** 2
            if not last:
                decay.sum().backward()
            now += decay.detach().cpu()
        if not torch.isfinite(now).all():
            raise EditFailedError(
                f"The loss of the value in layer {layer} is not finite at step {step + 1}: lower `v_lr` "
                f"({hparams.v_lr:g}) or load the model in float32. The model is as it was."
            )
        for job, value in zip(active, now.tolist(), strict=True):
            losses[job].append(value)
        progress.advance(loss=float(now.mean()))
        done = [job for job in active if last or losses[job][-1] < hparams.v_stop_loss]
        for job in done:
            found[job] = Value(initial[job], delta[job].detach().clone(), losses[job])
        if len(done) == len(active):
            break
        optimizer.step()
        with torch.no_grad():
            longest = hparams.clamp_norm_factor * norms
            size = delta.norm(dim=1)
            delta.mul_(torch.where(size > longest, longest / size.clamp(min=1e-30), 1.0)[:, None])
        if done:
            active = [job for job in active if job not in done]
            rows.keep(active)
    return [found[job] for job in range(len(jobs))]


@dataclass
class _Pass:
    """Rows that are read in one forward pass.

    Attributes:
        rows: The rows.
        lower: The replayed output of the layers below; None where they are run.
        owner: `(rows,)` the edit of each.
        wanted: `(n, 4)` row, column, edit's place among the active ones, and token of every wanted prediction.
        essence: `(m, 3)` row, column and edit's place of every essence prompt.
    """

    rows: FrozenRows
    lower: Any
    owner: torch.Tensor
    wanted: torch.Tensor
    essence: torch.Tensor


class _Rows:
    """Losses of several edits, in few forward passes; everything that δ cannot reach is read only once."""

    def __init__(
        self,
        model: Any,
        layout: Layout,
        jobs: list[_Job],
        hparams: LocateEditHyperParams,
        layer: int,
        edited: nn.Module,
        share: bool,
    ) -> None:
        self.model, self.layout, self.jobs, self.hparams = model, layout, jobs, hparams
        self.edited = edited
        last = layout.depth - 1
        self.loss_layer = last if hparams.v_loss_layer is None else max(hparams.v_loss_layer, layer)
        # ROME's likelihood is the model's own; MEMIT's may be read off an earlier layer
        self.early = self.loss_layer < last and edited is layout.layer_module(model, layer)
        self.below = [layout.layer_module(model, n) for n in range(layer)]
        self.all_rows = FrozenRows(model, [row for job in jobs for row in job.rows], share=share)
        self.lower_output = self._read_below() if share and self.below else None
        self.reference: dict[int, torch.Tensor] = {}  # per edit, of its essence prompt before δ
        self.keep(list(range(len(jobs))))
        self.initial = self._initial()

    def _read_below(self) -> Any:
        with torch.no_grad():
            return run_until(self.model, self.below[-1], **self.all_rows.inputs())[1]

    def keep(self, active: list[int]) -> None:
        """Continue with these edits alone."""
        self.active = active
        firsts = [sum(len(job.rows) for job in self.jobs[:j]) for j in range(len(self.jobs))]
        places = [(place, j, r) for place, j in enumerate(active) for r in range(len(self.jobs[j].rows))]
        numbers = [firsts[j] + r for _, j, r in places]
        lengths = self.all_rows.lengths.tolist()
        groups = in_passes([lengths[n] for n in numbers], self.model.device)
        self.passes = [self._pass([places[i] for i in group], [numbers[i] for i in group]) for group in groups]

    def _pass(self, places: list[tuple[int, int, int]], numbers: list[int]) -> _Pass:
        rows = self.all_rows.select(numbers)
        lower = None
        if self.lower_output is not None:
            states = hidden(self.lower_output)
            chosen = states[torch.tensor(numbers, device=states.device)][:, : int(rows.lengths.max())]
            lower = chosen if isinstance(self.lower_output, torch.Tensor) else (chosen, *self.lower_output[1:])
        shift = rows.shift.tolist()
        wanted: list[tuple[int, int, int, int]] = []
        essence: list[tuple[int, int, int]] = []
        for number, (place, j, r) in enumerate(places):
            job = self.jobs[j]
            if r < len(job.predict):
                first = job.predict[r] - shift[number]
                wanted += [(number, first + i, place, token) for i, token in enumerate(job.target)]
            else:
                essence.append((number, job.rows[r].at - shift[number], place))
        return _Pass(
            rows,
            lower,
            torch.tensor([j for _, j, _ in places]),
            torch.tensor(wanted, dtype=torch.long).view(-1, 4),
            torch.tensor(essence, dtype=torch.long).view(-1, 3),
        )

    def _initial(self) -> torch.Tensor:
        first = [sum(len(job.rows) for job in self.jobs[:j]) for j in range(len(self.jobs))]
        inputs = self.all_rows.inputs()
        with torch.no_grad(), self._replayed(self.lower_output):
            states = by_token(hidden(run_until(self.model, self.edited, **inputs)[1]), *inputs["input_ids"].shape)
        rows = torch.tensor(first, device=states.device)
        return states[rows, self.all_rows.at.to(states.device)[rows]].detach().clone()

    def _replayed(self, lower: Any) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        if lower is not None:
            for module in self.below:
                stack.enter_context(replayed(module, lower))
        return stack

    def _forward(self, part: _Pass, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities: `(wanted, vocabulary)` for the answers, `(m, vocabulary)` for the essence prompts."""

        def add(states: torch.Tensor) -> torch.Tensor:
            every = by_token(states, *inputs["input_ids"].shape)
            rows = torch.arange(len(every), device=states.device)
            change = delta[part.owner.to(delta.device)].to(states)
            return every.index_put((rows, part.rows.at.to(states.device)), change, accumulate=True).view_as(states)

        inputs = part.rows.inputs()
        early: list[torch.Tensor] = []
        spots = part.essence[:, :2] if self.early else torch.cat([part.wanted[:, :2], part.essence[:, :2]])
        head = self.model.get_output_embeddings()
        with self._replayed(part.lower) as stack:
            stack.enter_context(altered(self.edited, add))
            stack.enter_context(narrowed(head, lambda states: _pick(states, spots)[None]))
            if self.early:
                module = self.layout.layer_module(self.model, self.loss_layer)
                stack.enter_context(watched(module, lambda _, out: early.append(_pick(hidden(out), part.wanted))))
            logits = self.model(**inputs).logits[0]
        log_p = logits.float().log_softmax(-1)
        if self.early:
            return self._read_out(early[0]).float().log_softmax(-1), log_p
        return log_p[: len(part.wanted)], log_p[len(part.wanted) :]

    def _read_out(self, states: torch.Tensor) -> torch.Tensor:
        head = self.model.get_submodule(self.layout.head)
        if self.layout.final_norm is not None:
            states = self.model.get_submodule(self.layout.final_norm)(states)
        return F.linear(states.to(head.weight.device), head.weight, getattr(head, "bias", None))

    def losses(self, delta: torch.Tensor) -> Iterator[torch.Tensor]:
        """The likelihood and essence terms that each pass adds to the active edits' losses, `(active,)` each."""
        predictions = torch.tensor([len(self.jobs[j].predict) * len(self.jobs[j].target) for j in self.active])
        for part in self.passes:
            answers, essence = self._forward(part, delta)
            device = answers.device
            place, token = part.wanted[:, 2].to(device), part.wanted[:, 3].to(device)
            shares = -answers.gather(1, token[:, None])[:, 0] / predictions.to(device)[place]
            term = torch.zeros(len(self.active), device=device).index_add(0, place, shares)
            edits = [self.active[place_of] for place_of in part.essence[:, 2].tolist()]
            if any(j not in self.reference for j in edits):
                # δ is zero at the first call, and so are the divergence and its gradient
                self.reference.update((j, row.detach().clone()) for j, row in zip(edits, essence, strict=True))
            elif edits:
                old = torch.stack([self.reference[j] for j in edits])
                kl = F.kl_div(old, essence, log_target=True, reduction="none").sum(1)
                term = term.index_add(0, part.essence[:, 2].to(device), self.hparams.kl_factor * kl.to(device))
            yield term


def _pick(states: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
    """The hidden states at `(row, column, …)` spots."""
    spots = spots.to(states.device)
    return states[spots[:, 0], spots[:, 1]]
