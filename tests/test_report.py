"""The report: what the page says, that nothing a model wrote becomes markup, and that it works in a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest
from command_line import run
from published import OLD, REFUTING, RIGHT, UNJUDGED, MarkJudge, case, locality, write

from causaledit.errors import JudgingStoppedError, MetricsError, RequestError, SaveError
from causaledit.judges.registry import get_judge
from causaledit.report.html import write_report

ATTACK = (
    "</script><script>window.attacked = 1</script><img src=x onerror='window.attacked = 1'> <!-- &lt; \u2028 {{ 7*7 }}"
)
LAYOUT = "MQuAKE-CF-3k/tiny/{}/tag-default/n{}_seed70_a"


class Page(HTMLParser):
    """The page's elements, its visible text, and the records in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self.scripts, self._inside = [], [], ""
        self.feed(html)
        self.data = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text.append(data.strip())

    @property
    def words(self):
        return " ".join(text for text in self.text if text)

    def records(self, **wanted):
        return [r for r in self.data["records"] if all(r[key] == value for key, value in wanted.items())]


def make_run(root: Path, method: str, cases, *, info=True) -> Path:
    """A run's folder in the published layout; with `info` the files in meta/ that our runs add."""
    folder = root / LAYOUT.format(method, len(cases))
    write(folder, cases)
    if info:
        arguments = {"editing_method": method, "datatype": "MQuAKE-CF-3k", "model_type": "tiny", "run_id": "a"}
        costs = {"seconds_per_edit": 12.5, "plain_tokens_per_second": 80.0, "peak_rss_mb": 2048.0, "probe_tokens": 640}
        write(folder, arguments, "meta/run_args.json")
        write(folder, {"status": "finished", "costs": costs, "device": {"type": "cpu"}}, "meta/run_info.json")
    return folder


def some_cases(hop_wise=RIGHT, conflict=RIGHT, multi_hop=RIGHT):
    made = [case(n, 1 + n % 2, hop_wise=hop_wise, conflict=conflict, multi_hop=multi_hop) for n in range(4)]
    made[0]["post"]["locality_probe"] = [locality("The longest river?", "the Nile", "[PASS] the Nile", "[FAIL] no")]
    return made


@pytest.fixture
def two(tmp_path):
    """A run with meta/, and one as published."""
    mixed = some_cases(conflict=REFUTING)
    for data in mixed[2:]:
        data["post"]["accuracy_pred"][0]["pred"] = OLD
    return [
        make_run(tmp_path, "CausalEdit", some_cases()),
        make_run(tmp_path, "ROME", mixed, info=False),
    ]


def page_of(runs, out, **options):
    return Page(write_report(runs, out, judge=MarkJudge(), **options).read_text(encoding="utf-8"))


# ---- content -------------------------------------------------------------------------------------------------------
def test_metrics_counts_and_intervals_stand_side_by_side(two, tmp_path):
    page = page_of(two, tmp_path / "report.html")
    assert page.data["runs"] == ["CausalEdit", "ROME"]
    words = page.words
    # a rate of self-refutation never stands without the length of the answers that it is over
    quiet, refuting = "0.0 % 0/6; 95 %: 0 to 39; 6 words an answer", "100.0 % 6/6; 95 %: 61 to 100; 15 words an answer"
    assert f"SRR: self-refutation, combined {quiet} {refuting}" in words
    assert "M-Acc: multi-hop, all questions 100.0 % 4 cases; 95 %: 51 to 100 83.3 % 4 cases" in words
    assert "H-Acc: 2-hop chains 100.0 % 2 cases" in words and "Answers right at hop 2 of the chain" in words
    # paired with the first: all six edits are harmed, p = 2 / 2**6
    assert "ROME SRR, combined 6 – 0 6 0.031" in words
    # seconds per edit: from run_info.json; of the published run from the cases' `time` (1.5 s, over 6 edits in 4 cases)
    assert "Editing, seconds per edit 12.5 1.0" in words
    assert "Peak memory, GB 2.0 –" in words and "Locality: answer unchanged 0.0 % 0/1" in words


def test_every_prediction_is_there_with_its_verdicts(two, tmp_path):
    page = page_of(two, tmp_path / "report.html")
    per_run = 6 * (3 + 8 + 2) + 4 * 3 + 1
    assert [len(page.records(run=n)) for n in (0, 1)] == [per_run, per_run]
    record = page.records(run=1, case="1", probe="conflict")[3]
    assert record["form"] == "describe, cloze new old"
    [verdict] = record["verdicts"]
    assert verdict["self_refutation"] is True and verdict["final_answer_is_target_new"] is False
    assert page.data["texts"][verdict["edit"]]["new"] == "Bergen"
    why = page.records(run=0, case="1", probe="hop_wise")[2]
    assert [v["task"] for v in why["verdicts"]] == ["answer", "refutation", "rationale"]
    before, after = page.records(run=0, probe="locality")[0]["verdicts"][::-1]
    assert (before["grade"], before["before"], after["grade"]) == ("PASS", True, "FAIL")
    assert page.records(probe="old_knowledge")[0]["verdicts"][0]["by"] == "alias match"
    prompts = [t for t in page.data["texts"] if isinstance(t, str)]
    assert len(prompts) == len(set(prompts))


def test_not_judged_and_failed_cases_are_said_not_counted(tmp_path):
    broken = {"case_id": 9, "requested_rewrite": [], "error": "EditFailedError: the loss is not finite"}
    run = make_run(tmp_path, "FT", [case(1, multi_hop=[RIGHT, UNJUDGED, None]), broken])
    page = page_of([run], tmp_path / "out.html")
    assert "1 case without predictions" in page.words and "the loss is not finite" in page.words
    assert "2 answers not judged" in page.words
    errors = [v["error"] for r in page.records(probe="multi_hop") for v in r["verdicts"] if "error" in v]
    assert errors == ["marked", "there is no prediction"]
    assert page.records(probe="multi_hop")[2]["response"] is None


def test_a_pilot_study_shows_both_books(tmp_path):
    cases = some_cases(hop_wise=REFUTING)
    for data in cases:
        twin = case(data["case_id"], len(data["requested_rewrite"]))["post"]
        data["post"]["causal_enhanced_hop_wise_pred"] = twin["hop_wise_pred"]
        data["post"]["causal_enhanced_conflict_probe"] = twin["conflict_probe"]
    entry = cases[0]["post"]["hop_wise_pred"][0][0]
    entry["forced_prefix"], entry["pred"] = "Norway!", "[+-] Oslo."
    page = page_of([make_run(tmp_path, "PreEdited", cases)], tmp_path / "out.html")
    words = re.sub(r"; \d+ words an answer", "", page.words)
    assert "PreEdited combined 100.0 % 6/6; 95 %: 61 to 100 0.0 % 0/6; 95 %: 0 to 39 6 6 0 0.031" in words
    assert "Conflict, open-book" in page.data["probes"].values()
    forced = page.records(case="0", probe="hop_wise")[0]
    assert page.data["texts"][forced["forced"]] == "Norway!" and forced["response"] == "Norway! [+-] Oslo."


def test_figures_are_inside_and_titled(two, tmp_path):
    page = page_of(two, tmp_path / "report.html")
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) >= 2
    assert all(i["src"].startswith("data:image/svg+xml;base64,") and i["alt"] for i in images)


CURVES = {
    "proximal": [2.0, 1.0],
    "consolidate": [0.0, -0.25],
    "reward": [0.0, 0.7],
    "reward_correctness": [0.0, 1.0],
    "flat_groups": [1.0, 0.0],
}
FLAT = {**CURVES, "consolidate": [0.0], "reward": [0.0], "reward_correctness": [0.0], "flat_groups": [1.0]}


def trained(folder, *groups):
    for number, curves in enumerate(groups):
        write(folder, {"edits": 2, "losses": curves}, f"losses/{number:06d}.json")
    return folder


def test_losses_and_rewards_are_drawn_and_a_missing_gradient_is_said(two, tmp_path):
    trained(two[0], CURVES, FLAT)
    page = page_of(two, tmp_path / "report.html")
    words = page.words
    # the second edits stopped after one step, and count with it in the last; ROME's run is an old one, without losses
    assert "proximal 2 → 1 4 edits, 2 steps –" in words
    assert "consolidate 0 → −0.125" in words
    assert "reward: correctness 0 → 0.5" in words and "reward, all parts 0 → 0.35" in words
    assert "CausalEdit: in 67 % of the groups of responses all rewards were equal, which gives no gradient; " in words
    assert "2 of 4 edits got no gradient from the rewards at all." in words
    assert any("step by step" in attributes.get("alt", "") for _, attributes in page.elements)


def test_rewards_that_never_vary_are_said_and_ones_that_do_are_not(two, tmp_path):
    trained(two[0], FLAT, FLAT)
    trained(two[1], {**CURVES, "flat_groups": [0.0, 0.25]})
    words = page_of(two, tmp_path / "report.html").words
    assert "CausalEdit: the rewards of every group of responses were equal: they gave no gradient." in words
    assert "ROME: in " not in words and "ROME: the rewards" not in words


def test_a_run_without_losses_has_no_section_of_training_and_damaged_ones_are_left_out(two, tmp_path):
    assert "Training" not in page_of(two, tmp_path / "a.html").words
    trained(two[0], {"bootstrap": []}, {"bootstrap": [None, "x", True]}, "nothing", ATTACK)
    (two[0] / "losses" / "000009.json").write_text('{"losses": {"boot')
    assert "Training" not in page_of(two, tmp_path / "b.html").words
    trained(two[0], {ATTACK: [1, 0.5], "$x": [float("nan"), 3.0]})
    page = page_of(two, tmp_path / "c.html")
    assert [tag for tag, _ in page.elements].count("script") == 2 and "$x 3 → 3 2 edits, 1 step" in page.words


def test_runs_of_one_method_get_different_names(tmp_path):
    runs = [make_run(tmp_path / name, "ROME", some_cases(), info=False) for name in ("a", "b")]
    page = page_of(runs, tmp_path / "out.html")
    assert page.data["runs"] == ["ROME (1)", "ROME (2)"]
    bare = write(tmp_path / "bare", some_cases())
    assert page_of([bare, runs[0]], tmp_path / "out.html").data["runs"] == ["bare", "ROME"]


# ---- escaping ------------------------------------------------------------------------------------------------------
def hostile(tmp_path):
    cases = some_cases(multi_hop=f"[FAIL] {ATTACK}")
    rewrite = cases[0]["requested_rewrite"][0]
    rewrite["subject"], rewrite["article"] = ATTACK, f"because {ATTACK}"
    cases[1]["post"]["conflict_probe"][0]["prompt"] = ATTACK
    cases[2] = {"case_id": ATTACK, "requested_rewrite": [], "error": ATTACK}
    folder = make_run(tmp_path, "ROME", cases)
    write(folder, {"editing_method": f"$x$ {ATTACK}", "model_type": ATTACK, "run_id": ATTACK}, "meta/run_args.json")
    return folder


def test_nothing_that_a_file_holds_becomes_markup(tmp_path):
    html = write_report([hostile(tmp_path)], tmp_path / "out.html", judge=MarkJudge()).read_text(encoding="utf-8")
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("script") == 2 and "<!--" not in html
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert all(not attributes.get("src", "data:").startswith("x") for _, attributes in page.elements)
    assert page.records(probe="multi_hop")[0]["response"] == f"[FAIL] {ATTACK}"  # and nothing is lost


def test_the_page_asks_for_nothing_and_forbids_it(two, tmp_path):
    html = write_report(two, tmp_path / "out.html", judge=MarkJudge()).read_text(encoding="utf-8")
    page = Page(html)
    [policy] = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    addresses = [v for _, a in page.elements for k, v in a.items() if k in ("src", "href", "action", "data")]
    assert all(re.match(r"data:|#", address) for address in addresses)


def test_a_response_of_100_kb_is_cut_and_says_so(tmp_path):
    long = case(1, multi_hop=[f"[PASS] {'x' * 100_000}", RIGHT, RIGHT])
    page = page_of([make_run(tmp_path, "FT", [long])], tmp_path / "out.html")
    record = page.records(probe="multi_hop")[0]
    assert len(record["response"]) == 20_000 and record["response_cut"] == 80_007


# ---- verdicts on disk, and bad input -------------------------------------------------------------------------------
def test_verdicts_are_kept_and_used_again(two, tmp_path):
    first, second = MarkJudge(), MarkJudge()
    write_report(two, tmp_path / "a.html", judge=first)
    write_report(two, tmp_path / "b.html", judge=second)
    assert first.asked and not second.asked
    assert (two[0] / "analysis" / "verdicts_marks.jsonl").is_file()


def test_bad_input_is_refused_before_anything_is_written(two, tmp_path):
    out = tmp_path / "out.html"
    cut = write(tmp_path / "cut", some_cases())
    cut.write_text(cut.read_text()[:500])
    for runs, error, words in (
        ([tmp_path / "nowhere"], MetricsError, "nowhere"),
        ([tmp_path], MetricsError, "no metrics.json"),
        ([cut], RequestError, "metrics.json"),
        ([two[0], two[0] / "metrics.json"], MetricsError, "twice"),
        ([], MetricsError, "at least one"),
    ):
        with pytest.raises(error, match=words):
            write_report(runs, out, judge=MarkJudge())
    with pytest.raises(SaveError, match="folder"):
        write_report(two, tmp_path, judge=MarkJudge())
    unjudged = make_run(tmp_path / "u", "FT", [case(1, hop_wise=UNJUDGED, multi_hop=UNJUDGED, conflict=UNJUDGED)])
    with pytest.raises(JudgingStoppedError, match="marked"):
        write_report([unjudged], out, judge=MarkJudge())
    assert not out.exists()


def test_the_command(two, tmp_path):
    out = tmp_path / "new" / "report.html"
    done = run("report", *two, "--html", out)
    assert done.returncode == 0 and str(out) in done.stdout, done.stderr
    assert "judge rule-" in Page(out.read_text(encoding="utf-8")).words
    wrong = run("report", tmp_path / "nowhere", "--html", out)
    assert wrong.returncode == 2 and "nowhere" in wrong.stderr
    assert run("report", two[0], "--html", out, "--judge", "rul").returncode == 2


# ---- in a browser --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chromium():
    with browser.started() as running:
        yield running


@pytest.fixture
def opened(chromium):
    """Open a page from its file, which alone is read."""
    files: list[str] = []
    with browser.silent_tab(chromium, lambda url: url in files) as tab:

        def go(file):
            files.append(Path(file).as_uri())
            tab.goto(files[-1])
            return tab

        yield go


def counted(tab, number):
    """Wait until the page says that so many predictions are found."""
    from playwright.sync_api import expect  # the page's policy keeps polling functions out

    expect(tab.locator("#count")).to_have_text(re.compile(f"^{number:,} of "), timeout=60_000)
    return tab.locator("#list article").count()


def test_filters_search_and_details_in_chromium(two, tmp_path, opened):
    tab = opened(write_report(two, tmp_path / "report.html", judge=MarkJudge()))
    total = 2 * (6 * (3 + 8 + 2) + 4 * 3 + 1)
    assert counted(tab, total) == 50
    tab.click("#more")
    assert tab.locator("#list article").count() == 100

    tab.select_option("#filter-verdict", "refutes")
    assert counted(tab, 6 * 8) == 48
    tab.select_option("#filter-run", label="CausalEdit")
    assert counted(tab, 0) == 0
    tab.select_option("#filter-run", label="ROME")
    tab.select_option("#filter-probe", label="Hop-wise")
    assert counted(tab, 0) == 0
    tab.select_option("#filter-probe", label="Conflict")
    tab.fill("#filter-case", "3")
    assert counted(tab, 2 * 8) == 16
    tab.fill("#filter-text", "alexandria")
    assert counted(tab, 8) == 8

    entry = tab.locator("#list article").first
    assert entry.locator(".body").count() == 0  # made when it is opened
    entry.locator("summary").first.focus()
    tab.keyboard.press("Enter")
    entry.locator(".body").wait_for()
    text = entry.inner_text()
    assert "What is the capital of Egypt?" in text and "refutes itself" in text and "Cairo → Alexandria" in text
    tab.get_by_role("button", name="This prompt in all runs").click()
    counted(tab, 2 * 4)  # in this made-up case four of the edit's conflict prompts are one text
    tab.click("button[type=reset]")
    counted(tab, total)


def test_two_runs_fit_a_wide_page_and_a_narrow_one_is_scrolled_in_chromium(two, tmp_path, opened):
    tab = opened(write_report(two, tmp_path / "report.html", judge=get_judge("rule")))  # whose notes are the longest
    tab.set_viewport_size({"width": 1200, "height": 900})
    hidden = "tables => tables.map(t => t.scrollWidth - t.clientWidth)"
    assert tab.locator("#metrics td small").count() > 10
    assert max(tab.eval_on_selector_all(".scroll", hidden)) <= 0
    tab.set_viewport_size({"width": 400, "height": 900})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    assert min(tab.eval_on_selector_all(".plot img", "images => images.map(i => i.clientWidth)")) > 600


def test_training_is_shown_in_chromium(two, tmp_path, opened):
    trained(two[0], CURVES, FLAT)
    tab = opened(write_report(two, tmp_path / "report.html", judge=MarkJudge()))
    tab.get_by_role("link", name="Training").click()
    assert tab.url.endswith("#training")
    figure = tab.locator("#training figure")
    assert figure.count() == 1 and "CausalEdit" in figure.inner_text()
    assert figure.locator("img").evaluate("image => image.complete && image.naturalWidth") > 300
    assert "got no gradient" in tab.locator("#training .note").inner_text()


def test_evidence_is_marked_in_chromium(tmp_path, opened):
    said = "The capital is {new}. No, that is wrong: the capital is not {new}. The capital is {old}."
    run = make_run(tmp_path, "ROME", [case(1, hop_wise=said)])
    tab = opened(write_report([run], tmp_path / "report.html", judge=get_judge("rule")))
    tab.select_option("#filter-probe", "hop_wise")
    counted(tab, 3)
    tab.locator("#list summary").first.click()
    block = tab.locator("#list article").first.locator(".response")
    assert block.inner_text() == said.format(new="Bergen", old="Oslo")
    assert "not Bergen" in block.locator("mark.negation").first.inner_text()
    assert "Bergen" in block.locator("mark.assertion").first.inner_text()
    assert "Oslo" in block.locator("mark.final").first.inner_text()


def test_hostile_texts_do_nothing_in_chromium(tmp_path, opened):
    tab = opened(write_report([hostile(tmp_path)], tmp_path / "out.html", judge=MarkJudge()))
    tab.evaluate("document.querySelectorAll('#list details').forEach((item) => { item.open = true; })")
    tab.locator(".body").nth(10).wait_for()
    assert tab.evaluate("window.attacked === undefined")
    assert tab.locator("#list img, #list script").count() == 0
    assert tab.locator("#list").get_by_text("window.attacked = 1").count() > 0


def test_thousands_of_predictions_stay_quick_in_chromium(tmp_path, opened):
    cases = [case(n, 4, hop_wise=REFUTING if n % 3 else RIGHT) for n in range(100)]
    file = write_report([make_run(tmp_path, "ROME", cases)], tmp_path / "out.html", judge=MarkJudge())
    total = 100 * (4 * (3 + 8 + 2) + 3)
    tab = opened(file)
    assert counted(tab, total) == 50  # what is not seen is not made
    tab.fill("#filter-text", "oslo")
    counted(tab, 100 * (3 + 8 + 2))  # those of the Norwegian edit
