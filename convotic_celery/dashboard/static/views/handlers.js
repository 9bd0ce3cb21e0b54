// All handlers: what needs somebody first, then everything, to be searched and sorted.

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, duration, plural } from "../format.js";
import { icon } from "../icons.js";
import { badge, dotted, empty, figure, heading, link, mono, named, note, panel } from "../parts.js";
import { groupRows } from "./dead-letters.js";

export const title = () => "Handlers";

export async function load(_shown, signal) {
  const [handlers, groups] = await Promise.all([
    get("handlers", signal),
    get("dead-letters/groups?limit=5", signal).catch((error) => ({ problem: error.message })),
  ]);
  return { ...handlers, groups };
}

// Kept while the page is open.
const view = { text: "", by: "attention", down: true };

const COLUMNS = [
  ["name", "Handler", ""],
  ["module", "Module", "wide"],
  ["ready", "Waiting", "n"],
  ["oldest_seconds", "Oldest", "n wide"],
  ["running", "Running", "n wide"],
  ["succeeded", "Succeeded", "n wide"],
  ["retried", "Retried", "n wide"],
  ["dead", "Dead letters", "n"],
];

// Of what is known; null if nothing is.
const sum = (rows, name) =>
  rows.reduce((total, row) => (row[name] == null ? total : (total ?? 0) + row[name]), null);

/** What stands below a sum: that (some of) it is not known, or what it means. */
function explain(rows, name, meaning) {
  const known = rows.filter((row) => row[name] != null).length;
  if (!known) return "not known";
  return known < rows.length ? `of ${known} of ${plural(rows.length, "handler")}` : meaning;
}

/** Return a handler's row with the figures that the table shows. */
export function enrich(row) {
  return {
    ...row,
    ready: row.messages == null ? null : row.messages - (row.leased ?? 0),
    running: row.running ?? row.leased,
    succeeded: row.outcomes ? (row.outcomes.succeeded ?? 0) : null,
    retried: row.outcomes ? (row.outcomes.retried ?? 0) : null,
    dead: row.dead_letters ?? row.dead_letters_waiting,
  };
}

export function render(data, _shown, context) {
  const rows = data.handlers.map(enrich);
  if (!rows.length) return [heading("Handlers"), nothing()];
  return [
    heading("Handlers", search(context)),
    data.store.problem && note("warn", data.store.problem),
    tiles(rows, data, context),
    data.groups.items?.length > 0 &&
      panel("Needs attention", {
        class: "attention",
        actions: h("a", { href: "#/dead-letters" }, "All dead letters"),
      }, groupRows(data.groups.items)),
    table(choose(rows), context),
    footnote(data, rows),
  ];
}

function nothing() {
  return empty(
    "No handlers yet",
    "Put a module into ", mono("modules/"), " or name one in ", mono("CONVOTIC_MODULES"),
    ", then restart the dashboard. ", mono("convotic handlers"), " lists what is found.",
  );
}

function search(context) {
  return h("label", { class: "search" },
    icon("search"),
    h("input", {
      type: "search", placeholder: "Filter handlers", "aria-label": "Filter handlers",
      value: view.text, autocomplete: "off", spellcheck: "false",
      oninput: (event) => {
        view.text = event.target.value;
        context.render();
      },
    }),
    h("kbd", null, "/"));
}

function tiles(rows, data, context) {
  const waiting = sum(rows, "ready");
  const dead = sum(rows, "dead");
  const ages = rows.map((row) => row.oldest_seconds).filter((age) => age != null);
  const oldest = ages.length ? `oldest ${duration(Math.max(...ages))}` : "";
  const workers = data.workers.count;
  const { delayed } = context.badges;
  return h("div", { class: "tiles" },
    tile("Waiting", count(waiting), explain(rows, "ready", waiting ? oldest : "nothing waits")),
    tile("Running", count(sum(rows, "running")), explain(rows, "running", "now")),
    tile("Dead letters", count(dead), explain(rows, "dead", dead ? "to review" : "none"),
      "#/dead-letters", dead ? "bad" : ""),
    tile("Delayed", count(delayed), delayed == null ? "not known" : "to be published later", "#/delayed"),
    tile("Workers", count(workers),
      workers === 0 ? "none answers" : workers == null ? "not known" : "answering", "#/workers",
      workers === 0 ? "warn" : ""),
  );
}

function tile(name, value, hint, href, kind = "") {
  return h(href ? "a" : "div", { class: `tile ${kind}`, href, key: name },
    h("span", { class: "tile-name" }, name),
    h("span", { class: "tile-value" }, value),
    h("span", { class: "tile-hint" }, hint));
}

function choose(rows) {
  const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter((row) =>
    words.every((word) => `${row.name} ${row.topic} ${row.module}`.toLowerCase().includes(word)));
  const by = view.by === "attention"
    ? (row) => [(row.dead ?? 0) > 0 ? 1 : 0, row.dead ?? 0]
    : (row) => [row[view.by] ?? -1];
  return found.sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    for (let i = 0; i < x.length; i++) {
      if (x[i] !== y[i]) return (x[i] < y[i] ? 1 : -1) * (view.down ? 1 : -1);
    }
    return a.name < b.name ? -1 : 1;
  });
}

function table(rows, context) {
  if (!rows.length) return empty("Nothing matches", `No handler has “${view.text}” in its name, topic or module.`);
  // A column with the same value everywhere says nothing.
  const withModule = new Set(rows.map((each) => each.module)).size > 1;
  const columns = COLUMNS.filter(([name]) => name !== "module" || withModule);
  return h("div", { class: "panel flush", key: "table" },
    h("table", { class: "list" },
      h("thead", null, h("tr", null, columns.map(([name, text, kind]) => sorter(name, text, kind, context)))),
      h("tbody", null, rows.map((each) => row(each, withModule)))));
}

function sorter(name, text, kind, context) {
  const isBy = view.by === name;
  return h("th", {
    class: kind, key: name, scope: "col",
    "aria-sort": isBy ? (view.down ? "descending" : "ascending") : null,
  }, h("button", {
    type: "button",
    onclick: () => {
      const down = name !== "name" && name !== "module";
      if (isBy && view.down !== down) Object.assign(view, { by: "attention", down: true });
      else Object.assign(view, isBy ? { down: !view.down } : { by: name, down });
      context.render();
    },
  }, text));
}

function row(each, withModule) {
  const kind = each.dead ? "bad" : each.paused ? "warn" : each.running ? "good" : "";
  return h("tr", { key: each.name },
    h("td", null, named(kind,
      h("a", { class: "row-link", href: link(["handlers", each.name]) }, dotted(each.name)),
      each.paused && badge("paused", "warn"))),
    withModule && h("td", { class: "wide soft" }, each.module),
    h("td", { class: "n" }, figure(each.ready)),
    h("td", { class: "n wide" }, each.messages ? duration(each.oldest_seconds) : h("span", { class: "faint" }, "–")),
    h("td", { class: "n wide" }, figure(each.running, "good")),
    h("td", { class: "n wide" }, figure(each.succeeded, "", "No worker answers")),
    h("td", { class: "n wide" }, figure(each.retried, "warn", "No worker answers")),
    h("td", { class: "n" }, figure(each.dead, "bad")));
}

function footnote(data, rows) {
  const age = data.backlogs.age_seconds;
  const parts = [`${plural(data.handlers.length, "handler")}.`];
  if (age != null && age > 30) parts.push(`Queue lengths are ${duration(age)} old, from Cloud Monitoring.`);
  if (rows.some((row) => row.messages != null && row.leased == null)) parts.push("Waiting includes running messages.");
  if (data.workers.count) parts.push("Succeeded and retried count since each worker started.");
  return [
    data.backlogs.problem && note("", data.backlogs.problem),
    data.workers.problem && note("", data.workers.problem),
    h("p", { class: "footnote" }, parts.join(" ")),
  ];
}
