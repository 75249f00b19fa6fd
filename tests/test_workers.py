"""The pool that judging and narratives share: order, bounds, and the three ways in which it stops."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from causaledit.support.files import write_text
from causaledit.support.jsonl import JsonlStore, JsonlWriter, read_lines
from causaledit.support.workers import GaveUpError, in_workers


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_has_its_result(workers):
    assert sorted(in_workers(lambda n: n * n, range(20), workers=workers)) == [(n, n * n) for n in range(20)]
    assert list(in_workers(lambda n: n, [], workers=workers)) == []


def test_as_many_at_a_time_as_there_are_workers_and_results_as_they_come():
    lock, running, most = threading.Lock(), [0], [0]

    def work(seconds):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(seconds)
        with lock:
            running[0] -= 1
        return seconds

    results = [seconds for seconds, _ in in_workers(work, [0.5, *[0.02] * 9], workers=3)]
    assert results[-1] == 0.5  # the slow one came first and holds nobody up
    assert most[0] == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_failures_in_a_row_end_the_work_and_others_between_them_do_not(workers):
    begun = []

    def work(n):
        begun.append(n)
        return n < 6 and n % 3 == 0  # from item 6 on everything fails

    results = []
    with pytest.raises(GaveUpError):
        for item in in_workers(work, range(100), workers=workers, failed=lambda ok: not ok, give_up_after=4):
            results.append(item)
    assert sorted(n for n, _ in results) == sorted(begun)  # whatever was begun has its result
    assert 4 <= len(begun) < 50
    alternating = in_workers(lambda n: n % 2, range(50), workers=1, failed=lambda odd: not odd, give_up_after=2)
    assert len(list(alternating)) == 50


@pytest.mark.parametrize("workers", [1, 3])
def test_what_the_work_raises_reaches_the_caller(workers):
    def work(n):
        if n == 5:
            raise ValueError("five")
        return n

    with pytest.raises(ValueError, match="five"):
        list(in_workers(work, range(1000), workers=workers))


def test_a_caller_that_goes_away_stops_the_rest():
    begun, stopped = [], threading.Event()

    def work(n):
        begun.append(n)
        if n:
            stopped.wait(20)  # a call that hangs until it is told to end
        return n

    began = time.monotonic()
    for _ in in_workers(work, range(100), workers=4, on_stop=stopped.set):
        break
    assert stopped.is_set() and time.monotonic() - began < 10
    time.sleep(0.1)
    assert len(begun) <= 5


def test_on_stop_is_not_called_where_all_is_done():
    def never():
        raise AssertionError

    assert len(list(in_workers(lambda n: n, range(9), workers=3, on_stop=never))) == 9


# ---- the files they write ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cut", range(1, 30))
def test_a_row_cut_anywhere_is_lost_and_no_other(tmp_path, cut):
    file = tmp_path / "deep" / "rows.jsonl"
    writer = JsonlWriter(file)
    for n in range(3):
        writer.append({"key": str(n), "text": "é西"})
    writer.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    rows = [line.row for line in read_lines(file) if line.row]
    assert rows == [{"key": str(n), "text": "é西"} for n in range(3 if cut == 1 else 2)]  # only the line break
    again = JsonlWriter(file)
    again.append({"key": "new"})
    again.close()
    assert [line.row for line in read_lines(file)] == [*rows, {"key": "new"}]


def test_a_row_of_half_a_character_is_read_as_text_that_can_be_written(tmp_path):
    """Rows that were kept as they came."""
    file = tmp_path / "rows.jsonl"
    with JsonlStore(file, "test") as store:
        store.put({"key": "a", "text": "half \ud83d"})
    assert JsonlStore(file, "test").rows["a"]["text"] == "half ?"


@pytest.mark.parametrize("text", ["half \ud83d", "fine"])
def test_a_text_that_cannot_be_written_leaves_nothing_behind(tmp_path, text, monkeypatch):
    if text == "fine":
        monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / "kept").write_text("before")
    with pytest.raises((UnicodeEncodeError, KeyboardInterrupt)):
        write_text(tmp_path / "kept", text)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("kept", "before")]
