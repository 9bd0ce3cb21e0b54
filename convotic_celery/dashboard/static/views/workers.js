// The workers that answer, and what they run now.

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, duration, plural, when } from "../format.js";
import { badge, dotted, empty, heading, link, mono, named, note, panel } from "../parts.js";

export const title = () => "Workers";
export const load = (_shown, signal) => get("workers", signal);

export function render(data) {
  const workers = data.workers ?? [];
  const running = workers.flatMap((worker) => worker.running);
  return [
    heading("Workers", workers.length > 0 && h("span", { class: "soft" }, `asked ${duration(Math.round(data.age_seconds))} ago`)),
    data.problem && note("", data.problem),
    !workers.length && !data.problem && empty(
      data.workers ? "No worker answers" : "Asking…",
      "Start one: ", mono("celery -A convotic_celery worker"), " or ", mono("convotic dev"),
      ". Messages are kept meanwhile.",
    ),
    workers.length > 0 && h("div", { class: "panel flush", key: "table" },
      h("table", { class: "list" },
        h("thead", null, h("tr", null,
          ["Worker", "Running", "Succeeded", "Retried", "Dead letters", "Up"].map((text, i) =>
            h("th", { key: text, scope: "col", class: i ? (i > 1 && i < 5 ? "n wide" : "n") : "" }, text)))),
        h("tbody", null, workers.map(row)))),
    workers.length > 0 && panel("Running now", { actions: h("span", { class: "soft" }, plural(running.length, "message")) },
      running.length ? h("table", { class: "list plain" }, h("tbody", null, running.map((each) =>
        h("tr", { key: each.task_id },
          h("td", null, h("a", { class: "row-link", href: link(["handlers", each.handler]) }, dotted(each.handler))),
          h("td", { class: "wide" }, mono(each.task_id)),
          h("td", { class: "n nowrap" }, each.began_at ? h("span", null, "began ", when(each.began_at)) : "not begun")))))
        : h("p", { class: "soft pad" }, "Nothing is running.")),
  ];
}

const total = (worker, outcome) =>
  worker.outcomes == null ? "–" : count(Object.values(worker.outcomes).reduce((sum, each) => sum + (each[outcome] ?? 0), 0));

function row(worker) {
  const overdue = Object.values(worker.overdue).reduce((sum, each) => sum + each, 0);
  return h("tr", { key: worker.name },
    h("td", null, named("good", mono(worker.name),
      h("span", { class: "under" }, `process ${worker.process_id} · ${worker.pool}`),
      overdue > 0 && badge(`${plural(overdue, "run")} past the deadline`, "bad"))),
    h("td", { class: "n" }, count(worker.running.length)),
    h("td", { class: "n wide" }, total(worker, "succeeded")),
    h("td", { class: "n wide" }, total(worker, "retried")),
    h("td", { class: "n wide" }, total(worker, "dead_lettered")),
    h("td", { class: "n nowrap" }, duration(worker.uptime_seconds)));
}
