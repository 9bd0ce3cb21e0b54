// Dead letters by cause, and those of one cause or handler: look, and act on one, some or all.

import { get, pathOf, post } from "../api.js";
import { h } from "../dom.js";
import { count, plural, when } from "../format.js";
import { icon } from "../icons.js";
import {
  act, badge, button, dotted, empty, heading, link, mono, note, panel, sureButton, toast,
} from "../parts.js";

const STATES = ["open", "archived", "replayed", "missing"];
const HINT = "error=ValueError  attributes.region=eu  data.customer.city=Edinburgh  older=1h";

// Kept while the page is open.
const view = { search: "", typed: "", state: "open" };

export const title = () => "Dead letters";

/** What the list shows, as the API names it. */
const wanted = (shown) => {
  const [name] = shown.parameters;
  const own = name === undefined ? {} : shown.view.byHandler ? { handler: name } : { group: name };
  return { ...own, search: view.search, state: view.state };
};

export async function load(shown, signal) {
  const isList = shown.parameters.length > 0;
  const [groups, page, jobs] = await Promise.all([
    get(pathOf(["dead-letters", "groups"], wanted(shown)), signal),
    isList ? get(pathOf(["dead-letters"], { ...wanted(shown), limit: shown.own.limit ?? 50 }), signal) : null,
    get("dead-letters/jobs?limit=5", signal).catch(() => ({ items: [] })),
  ]);
  return { groups, page, jobs: jobs.items };
}

export const loadHandler = load;

export function render(data, shown, context) {
  return shown.parameters.length ? one(data, shown, context) : overview(data, shown, context);
}

function overview(data, shown, context) {
  const mayAct = !context.deployment?.read_only;
  return [
    heading("Dead letters", mayAct && button("Sync", (event) => act(event, async () => {
      const found = await post("dead-letters/sync");
      toast(`Synchronised with Pub/Sub: ${count(found.taken_in)} added, ${count(found.missing)} missing.${found.is_complete ? "" : " Some messages are leased to others, so not all could be seen."}`, "good");
      context.refresh();
    }), { title: "Add what Pub/Sub has forwarded itself, and what was dead-lettered while the store was unavailable" })),
    filters(shown, context),
    jobs(data.jobs, context),
    data.groups.items.length
      ? panel("", { class: "flush", key: "groups" }, groupRows(data.groups.items))
      : nothing(),
  ];
}

const nothing = () => view.search
  ? empty("Nothing matches", "No dead letter matches. Try ", mono(HINT))
  : view.state === "open"
    ? empty("No dead letters", "Messages that a handler fails to process after all retries appear here, with the reason, and can be replayed.")
    : empty(`None is ${view.state}`, "");

function filters(shown, context) {
  const again = () => {
    shown.own.selected?.clear();
    context.render();
    context.refresh();
  };
  return h("div", { class: "chips", key: "filters" },
    STATES.map((state) => h("button", {
      type: "button", key: state, class: "chip", "aria-pressed": String(view.state === state),
      onclick: () => { view.state = state; again(); },
    }, state)),
    h("form", {
      class: "search", role: "search",
      onsubmit: (event) => { event.preventDefault(); view.search = view.typed; again(); },
    },
    icon("search"),
    h("input", {
      type: "search", value: view.typed, placeholder: "Words, or error=… data.path=…", title: HINT,
      "aria-label": `Search, for example ${HINT}`, autocomplete: "off", spellcheck: "false",
      oninput: (event) => {
        view.typed = event.target.value;
        if (!view.typed && view.search) { view.search = ""; again(); }
      },
    }),
    h("kbd", null, "/")));
}

/** One row for each group; also on other pages. */
export function groupRows(groups, withHandler = true) {
  return h("table", { class: "list" }, h("tbody", null, groups.map((group) =>
    h("tr", { key: group.id },
      h("td", null,
        h("a", { class: "row-link", href: link(["dead-letters", "group", group.id]) }, short(group.error_type) || group.reason),
        group.failed_again > 0 && badge(`failed again ${count(group.failed_again)}×`, "warn"),
        h("span", { class: "under clamp" }, group.error_message || group.reason)),
      withHandler && h("td", { class: "wide" }, dotted(group.handler)),
      h("td", { class: "n nowrap soft wide" }, when(group.last_at)),
      h("td", { class: "n" }, badge(count(total(group)), view.state === "open" ? "bad" : ""))))));
}

const total = (group) => group.counts.open ?? Object.values(group.counts)[0];
const short = (name) => name.split(".").at(-1);

function one(data, shown, context) {
  const group = shown.view.byHandler ? null : data.groups.items[0];
  const name = shown.parameters[0];
  return [
    h("a", { class: "back", href: "#/dead-letters" }, icon("back"), "Dead letters"),
    heading(group ? short(group.error_type) || group.reason : shown.view.byHandler ? dotted(name) : "Dead letters",
      group && badge(group.reason)),
    group?.error_message && h("p", { class: "lead" }, group.error_message),
    group && h("p", { class: "soft facts-line" },
      h("a", { href: link(["handlers", group.handler]) }, dotted(group.handler)),
      h("span", null, "first ", when(group.first_at)), h("span", null, "last ", when(group.last_at)),
      group.failed_again > 0 && h("span", { class: "warn" }, `failed again ${plural(group.failed_again, "time")}`)),
    group?.stack.length > 0 && panel("Where", null, stack(group.stack)),
    filters(shown, context),
    jobs(data.jobs, context),
    data.page.is_sample && note("warn", "The store is unavailable: these are some that Pub/Sub delivered, not all."),
    data.page.items.length ? entries(data.page, shown, context) : nothing(),
  ];
}

export const stack = (lines) => h("pre", { class: "stack" }, lines.map((line, number) =>
  h(number === lines.length - 1 ? "b" : "span", { key: number }, `${line}\n`)));

function entries(page, shown, context) {
  const selected = (shown.own.selected ??= new Set());
  const mayAct = !context.deployment?.read_only;
  const toggle = (id) => {
    if (!selected.delete(id)) selected.add(id);
    context.render();
  };
  const isAll = page.items.every((each) => selected.has(each.id));
  return h("div", { class: "panel flush", key: "entries" },
    mayAct && actions(page, shown, context),
    h("table", { class: "list" },
      h("thead", null, h("tr", null,
        mayAct && h("th", { class: "tick", key: "tick" }, h("input", {
          type: "checkbox", checked: isAll, "aria-label": "Select all that are shown",
          onchange: () => {
            for (const each of page.items) if (isAll) selected.delete(each.id); else selected.add(each.id);
            context.render();
          },
        })),
        ["Message", "Error", "Runs", "When"].map((text) =>
          h("th", { key: text, scope: "col", class: text === "Runs" ? "n wide" : text === "When" ? "n" : text === "Error" ? "wide" : "" }, text)))),
      h("tbody", null, page.items.map((each) => h("tr", { key: each.id },
        mayAct && h("td", { class: "tick", key: "tick" }, h("input", {
          type: "checkbox", checked: selected.has(each.id), "aria-label": `Select message ${each.message_id}`,
          onchange: () => toggle(each.id),
        })),
        h("td", null, h("a", { class: "row-link", href: link(["dead-letters", each.id]) }, mono(each.message_id)),
          each.failed_again > 0 && badge(`failed again ${each.failed_again}×`, "warn"),
          shown.view.byHandler && h("span", { class: "under" }, short(each.error_type) || each.reason)),
        h("td", { class: "wide preview" }, h("span", { class: "clamp soft" }, each.error_message || each.reason)),
        h("td", { class: "n wide" }, count(each.attempts)),
        h("td", { class: "n nowrap" }, when(each.dead_lettered_at)))))),
    page.next_cursor && h("div", { class: "more" }, button("Show more", () => {
      shown.own.limit = Math.min(500, (shown.own.limit ?? 50) + 150);
      context.refresh();
    })));
}

function actions(page, shown, context) {
  const selected = shown.own.selected;
  const what = selected.size ? { ids: [...selected], state: view.state } : wanted(shown);
  const number = selected.size || page.total;
  const all = selected.size ? count(number) : number == null ? "all" : `all ${count(number)}`;
  return h("div", { class: "bar", role: "group", "aria-label": "Actions" },
    h("span", { class: "soft" }, selected.size ? `${count(selected.size)} selected` : number == null ? "all that match" : plural(number, "dead letter")),
    h("span", { class: "spacer" }),
    verbs(what, all, context, () => selected.clear()));
}

/** The buttons that do something with what is meant. */
export function verbs(what, all, context, done = () => {}) {
  const { state } = what;
  const moved = async (verb, past) => {
    const { count: number } = await post(`dead-letters/${verb}`, what);
    toast(`${plural(number, "dead letter")} ${past}.`, "good");
    done();
    context.refresh();
  };
  const begin = (verb, extra = {}) => async (event) => {
    const job = await act(event, () => post(`dead-letters/${verb}`, { ...what, ...extra }));
    if (!job) return;
    for (const warning of job.warnings) toast(warning, "bad");
    toast(`${plural(job.total, "dead letter")}: ${NAMES[verb]} has begun.`, "good");
    done();
    context.refresh();
  };
  const canPublish = state === "open" || state === "archived";
  return [
    canPublish && sureButton(`Replay ${all}`, `Replay ${all}?`, begin("replay"), { kind: "small primary", key: "replay" }),
    state === "archived" && button(`Restore ${all}`, (event) => act(event, () => moved("restore", "restored")), { kind: "small", key: "restore" }),
    (state === "open" || state === "missing") && button(`Archive ${all}`, (event) => act(event, () => moved("archive", "archived")), { kind: "small", key: "archive" }),
    (canPublish || state === "missing") && sureButton(`Delete ${all}`, `Delete ${all} for good?`, begin("purge"), { kind: "small", key: "purge" }),
  ];
}

const NAMES = { replay: "the replay", redirect: "the redirect", purge: "deletion" };

/** Jobs that run, wait to be resumed, or ended within the last minute. */
function jobs(all, context) {
  const shown = all.filter((job) => !isOver(job) || Date.now() - new Date(job.began_at) < 60_000);
  if (!shown.length) return null;
  return panel("Jobs", { key: "jobs" }, h("table", { class: "list plain" }, h("tbody", null, shown.map((job) =>
    h("tr", { key: job.id },
      h("td", null, h("strong", null, job.action), " ", mono(job.id),
        h("span", { class: "under" }, job.by)),
      h("td", null,
        h("div", { class: "progress" }, h("progress", { max: Math.max(1, job.total), value: finished(job), "aria-label": `${job.action} ${job.id}` })),
        h("span", { class: "under" }, progress(job)),
        job.error && h("span", { class: "under bad" }, job.error)),
      h("td", { class: "n" },
        badge(job.is_abandoned ? "interrupted" : job.state, job.state === "done" ? "good" : job.state === "failed" || job.is_abandoned ? "bad" : "info"),
        !context.deployment?.read_only && !isOver(job) && h("div", { class: "above row end" },
          job.is_abandoned &&
            button("Resume", (event) => act(event, async () => { await post(pathOf(["dead-letters", "jobs", job.id, "resume"])); context.refresh(); }), { kind: "small" }),
          button("Cancel", (event) => act(event, async () => { await post(pathOf(["dead-letters", "jobs", job.id, "cancel"])); context.refresh(); }), { kind: "small" }))))))));
}

const isOver = (job) => ["done", "cancelled", "failed"].includes(job.state);
const finished = (job) => job.done + job.skipped + job.failed + job.not_found;

function progress(job) {
  const parts = [`${count(job.done)} of ${count(job.total)}`];
  if (job.skipped) parts.push(`${count(job.skipped)} skipped`);
  if (job.failed) parts.push(`${count(job.failed)} failed`);
  if (job.not_found) parts.push(`${count(job.not_found)} not found`);
  if (job.target) parts.push(`to ${job.target}`);
  return parts.join(" · ");
}
