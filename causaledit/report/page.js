"use strict";
// The browser of predictions. Records are rendered page by page, their bodies when they are opened. Whatever a model
// or a file wrote goes through `textContent` only: no text is ever parsed as HTML.
(() => {
  const PAGE = 50;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { records, texts } = data;
  const VERDICTS = [
    ["refutes", "Refutes itself"],
    ["asserts", "Asserts the new answer"],
    ["denies", "Denies the new answer"],
    ["ends-on", "Ends on the new answer"],
    ["right", "Answer right"],
    ["wrong", "Answer wrong"],
    ["rationale-pass", "Rationale agrees"],
    ["rationale-fail", "Rationale contradicts"],
    ["rationale-unsure", "Rationale unsure"],
    ["unjudged", "Not judged"],
  ];
  const TASKS = { answer: "Answer", refutation: "Self-refutation", rationale: "Rationale" };
  const MARKS = {
    assertion: "asserts the new answer",
    negation: "denies the new answer",
    final: "what the response ends on",
    answer: "decides right or wrong",
    rationale: "decides the rationale",
    forced: "forced opening",
  };
  const byId = (id) => document.getElementById(id);
  const control = {
    run: byId("filter-run"),
    probe: byId("filter-probe"),
    verdict: byId("filter-verdict"),
    caseId: byId("filter-case"),
    text: byId("filter-text"),
  };
  const list = byId("list"), more = byId("more"), count = byId("count"), unpin = byId("unpin");
  let found = [], shown = 0, pinned = null;

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  // ---- filtering
  const flagsOf = (verdict) => {
    if (verdict.error) return ["unjudged"];
    if (verdict.before) return [];
    if (verdict.task === "answer") return [verdict.grade === "PASS" ? "right" : "wrong"];
    if (verdict.task === "rationale") return [`rationale-${String(verdict.grade).toLowerCase()}`];
    return [
      verdict.self_refutation && "refutes",
      verdict.assertion_of_target_new && "asserts",
      verdict.explicit_negation_of_target_new && "denies",
      verdict.final_answer_is_target_new && "ends-on",
    ].filter(Boolean);
  };
  for (const record of records) record.flags = new Set(record.verdicts.flatMap(flagsOf));

  const haystack = (record) => {
    record.haystack ??= [
      texts[record.prompt],
      record.response ?? "",
      ...record.edits.flatMap((number) => [texts[number].subject, texts[number].new, texts[number].old ?? ""]),
    ].join("\n").toLowerCase();
    return record.haystack;
  };

  const matches = () => {
    const run = control.run.value, probe = control.probe.value, verdict = control.verdict.value;
    const caseId = control.caseId.value.trim(), words = control.text.value.trim().toLowerCase();
    return records.filter((record) =>
      (run === "" || record.run === Number(run)) &&
      (probe === "" || record.probe === probe) &&
      (verdict === "" || record.flags.has(verdict)) &&
      (caseId === "" || record.case === caseId) &&
      (pinned === null || record.prompt === pinned) &&
      (words === "" || haystack(record).includes(words)));
  };

  const update = () => {
    found = matches();
    shown = 0;
    list.replaceChildren();
    const all = records.length.toLocaleString("en");
    count.textContent = `${found.length.toLocaleString("en")} of ${all} predictions` +
      (pinned === null ? "" : ", this prompt only");
    unpin.hidden = pinned === null;
    showMore();
  };

  const showMore = () => {
    const next = found.slice(shown, shown + PAGE);
    shown += next.length;
    list.append(...next.map(entry));
    more.hidden = shown >= found.length;
    more.textContent = `Show ${Math.min(PAGE, found.length - shown)} more of ${(found.length - shown).toLocaleString("en")}`;
    return next;
  };

  // ---- one prediction
  const badge = (className, text) => element("span", `badge ${className}`, text);

  const badges = (record) => {
    const made = [], has = (flag) => record.flags.has(flag);
    if (has("refutes")) made.push(badge("alarm", "⚠ refutes itself"));
    if (has("right")) made.push(badge("good", "✓ right"));
    if (has("wrong")) made.push(badge("bad", "✗ wrong"));
    if (has("rationale-pass")) made.push(badge("good", "✓ rationale"));
    if (has("rationale-fail")) made.push(badge("bad", "✗ rationale"));
    if (has("rationale-unsure")) made.push(badge("neutral", "? rationale"));
    if (has("asserts") && !has("refutes")) made.push(badge("neutral", "asserts new answer"));
    if (has("unjudged")) made.push(badge("neutral", "not judged"));
    return made;
  };

  const shorten = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);

  const entry = (record) => {
    const details = element("details", "",
      element("summary", "",
        element("span", "where", element("b", "", data.runs[record.run]),
          ` · case ${record.case} · ${data.probes[record.probe]} · ${record.form}`),
        ...badges(record),
        element("span", "snippet", snippet(record))));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(record));
    });
    return element("article", "", details);
  };

  // the question is what tells open-book prompts apart: their beginning is the narrative
  const snippet = (record) => {
    const prompt = texts[record.prompt];
    const last = record.probe.startsWith("open_book") ? prompt.slice(prompt.lastIndexOf("\n\n")).trim() : prompt;
    return shorten(last, 220);
  };

  const body = (record) => {
    const made = element("div", "body");
    const edits = record.edits.map((number) => texts[number]);
    for (const edit of edits) {
      made.append(element("p", "", `Edit: ${edit.question} `, element("b", "", edit.old ?? "?"), " → ",
        element("b", "", edit.new)));
    }
    const references = texts[record.refs];
    if (references.length) made.append(element("p", "", `Counts as right: ${references.join(" · ")}`));
    made.append(element("h3", "", "Prompt"), element("div", "text-block", texts[record.prompt]));
    if (record.before !== undefined) {
      made.append(element("h3", "", "Response before the edit"),
        response(record.before, record.before_cut, record, record.verdicts.filter((v) => v.before)));
    }
    made.append(element("h3", "", record.before === undefined ? "Response" : "Response after the edit"),
      response(record.response, record.response_cut, record, record.verdicts.filter((v) => !v.before)));
    if (record.verdicts.length) made.append(element("h3", "", "Verdicts"), verdictTable(record));
    for (const edit of edits.filter((e) => e.narrative)) {
      made.append(element("details", "", element("summary", "", `Narrative: ${edit.subject}`),
        element("div", "text-block", edit.narrative)));
    }
    if (data.runs.length > 1) {
      const same = element("button", "", "This prompt in all runs");
      same.type = "button";
      same.addEventListener("click", () => {
        byId("filters").reset();
        control.caseId.value = record.case;
        pinned = record.prompt;
        update();
        list.querySelectorAll("article > details").forEach((item) => { item.open = true; });
        byId("predictions").focus();
      });
      made.append(element("p", "", same));
    }
    return made;
  };

  const quotes = (verdict) => {
    if (verdict.task === "refutation") {
      return [["assertion", verdict.assertion_evidence], ["negation", verdict.negation_evidence],
        ["final", verdict.final_evidence]];
    }
    return [[verdict.task, verdict.evidence]];
  };

  // where a quotation stands in the text; a judge's may differ in spacing and case
  const locate = (text, quote) => {
    const wanted = (quote ?? "").trim();
    if (!wanted) return null;
    const exact = text.indexOf(wanted);
    if (exact >= 0) return [exact, exact + wanted.length];
    if (wanted.length > 2000) return null;
    const pattern = wanted.split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("\\s+");
    const loose = new RegExp(pattern, "i").exec(text);
    return loose && [loose.index, loose.index + loose[0].length];
  };

  const response = (text, cut, record, verdicts) => {
    const block = element("div", "text-block response");
    if (text === null || text === undefined) {
      block.append("(no prediction)");
      return block;
    }
    const spans = verdicts.flatMap(quotes)
      .map(([kind, quote]) => [kind, locate(text, quote)])
      .filter(([, place]) => place);
    if (record.forced !== undefined && text.startsWith(texts[record.forced])) {
      spans.push(["forced", [0, texts[record.forced].length]]);
    }
    const edges = [...new Set([0, text.length, ...spans.flatMap(([, place]) => place)])].sort((a, b) => a - b);
    for (let i = 0; i + 1 < edges.length; i += 1) {
      const part = text.slice(edges[i], edges[i + 1]);
      const kinds = [...new Set(spans.filter(([, [from, to]]) => from <= edges[i] && edges[i + 1] <= to)
        .map(([kind]) => kind))];
      if (kinds.length) {
        const mark = element("mark", kinds.join(" "), part);
        mark.title = kinds.map((kind) => MARKS[kind]).join("; ");
        block.append(mark);
      } else {
        block.append(part);
      }
    }
    if (cut) block.append(element("p", "where", `… ${cut.toLocaleString("en")} more characters are left out here.`));
    return block;
  };

  const yesNo = (value) => (value === true ? "yes" : value === false ? "no" : "not judged");

  const verdictTable = (record) => {
    const rows = [];
    const row = (what, value, evidence) => rows.push(element("tr", "",
      element("td", "", what), element("td", "", value), element("td", "", evidence ? `“${evidence}”` : "")));
    for (const verdict of record.verdicts) {
      const about = record.edits.length > 1 && verdict.edit !== undefined ? ` (${texts[verdict.edit].subject})` : "";
      const task = `${TASKS[verdict.task]}${about}${verdict.before ? ", before the edit" : ""}`;
      if (verdict.error) {
        row(task, "not judged", "");
        rows.at(-1).lastChild.textContent = verdict.error;
      } else if (verdict.task === "refutation") {
        row(task, verdict.self_refutation ? "refutes itself" : "does not refute itself", "");
        row("– asserts the new answer", yesNo(verdict.assertion_of_target_new), verdict.assertion_evidence);
        row("– denies the new answer", yesNo(verdict.explicit_negation_of_target_new), verdict.negation_evidence);
        row("– ends on the new answer", yesNo(verdict.final_answer_is_target_new), verdict.final_evidence);
      } else {
        row(verdict.by ? `${task}, by ${verdict.by}` : task, verdict.grade, verdict.evidence);
        if (verdict.reason) rows.at(-1).lastChild.append(` ${verdict.reason}`);
      }
    }
    const head = element("tr", "", ...["Question", "Verdict", "Evidence"].map((name) => {
      const cell = element("th", "", name);
      cell.scope = "col";
      return cell;
    }));
    return element("table", "", element("thead", "", head), element("tbody", "", ...rows));
  };

  // ---- start
  const fill = (select, all, options) => {
    for (const [value, name] of [["", all], ...options]) {
      const option = element("option", "", name);
      option.value = value;
      select.append(option);
    }
  };
  const occurring = new Set(records.flatMap((record) => [...record.flags]));
  fill(control.run, "All", data.runs.map((name, number) => [number, name]));
  fill(control.probe, "All", Object.entries(data.probes));
  fill(control.verdict, "All", VERDICTS.filter(([flag]) => occurring.has(flag)));

  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 150);
  };
  const filters = byId("filters");
  for (const select of [control.run, control.probe, control.verdict]) select.addEventListener("change", update);
  for (const input of [control.caseId, control.text]) input.addEventListener("input", soon);
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    update();
  });
  filters.addEventListener("reset", () => {
    pinned = null;
    setTimeout(update, 0);
  });
  unpin.addEventListener("click", () => {
    pinned = null;
    control.caseId.value = "";
    update();
  });
  more.addEventListener("click", () => {
    const from = shown;
    showMore();
    list.children[from]?.querySelector("summary")?.focus();
  });
  update();
})();
