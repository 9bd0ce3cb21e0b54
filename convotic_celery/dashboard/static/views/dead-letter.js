// One dead letter: what it is, why, what happened to it, and what to do.

import { get, pathOf, post } from "../api.js";
import { h } from "../dom.js";
import { count, json, plural, when } from "../format.js";
import { icon } from "../icons.js";
import {
  act, badge, button, copyable, dotted, facts, heading, link, mono, note, panel, sureButton, toast,
} from "../parts.js";
import { stack, verbs } from "./dead-letters.js";
import { attributes } from "./delayed.js";

export const title = (shown) => `Dead letter ${shown.parameters[0]}`;

export async function load(shown, signal) {
  const entry = await get(pathOf(["dead-letters", "entry", shown.parameters[0]]), signal);
  if (shown.own.redirecting && !shown.own.handlers) shown.own.handlers = (await get("handlers", signal)).handlers;
  return entry;
}

const KINDS = { open: "bad", replayed: "good", archived: "", missing: "warn", purged: "" };

export function render(dead, shown, context) {
  const mayAct = !context.deployment?.read_only;
  const what = { ids: [dead.id], state: dead.state };
  return [
    h("a", { class: "back", href: link(["dead-letters", "group", dead.group]) }, icon("back"), "Dead letters of this cause"),
    heading(mono(dead.message_id), badge(dead.state, KINDS[dead.state]),
      mayAct && verbs(what, "it", context),
      mayAct && (dead.state === "open" || dead.state === "archived") &&
        button("Redirect…", () => {
          shown.own.redirecting = !shown.own.redirecting;
          context.render();
          context.refresh();
        }, { kind: "small", "aria-expanded": String(Boolean(shown.own.redirecting)) })),
    shown.own.redirecting && shown.own.handlers && redirect(dead, shown, context),
    (dead.error_type || dead.error_message) &&
      note("bad", h("strong", null, dead.error_type), dead.error_type && dead.error_message ? ": " : "", dead.error_message),
    dead.failed_again > 0 && note("warn", `Replayed ${plural(dead.failed_again, "time")}, and failed again each time.`),
    dead.edited != null && note("warn", "Its data is edited: the next replay publishes the edited data."),
    h("div", { class: "columns" },
      panel("What it is", null, facts([
        ["Handler", h("a", { href: link(["handlers", dead.handler]) }, dotted(dead.handler))],
        ["Topic", copyable(dead.topic)],
        ["Reason", dead.reason],
        ["Runs", count(dead.attempts)],
        ["Message id", copyable(dead.message_id)],
        ["Dead letter", copyable(dead.dead_letter_id)],
        ["Size", `${count(dead.size)} bytes`],
      ])),
      panel("What happened", null, history(dead))),
    dead.stack.length > 0 && panel("Where", null, stack(dead.stack)),
    dead.is_hidden ? note("", "Data and attributes are hidden: CONVOTIC_DASHBOARD_PAYLOADS is false.") : payload(dead, shown, context, mayAct),
    attributes(dead.attributes),
  ];
}

function history(dead) {
  const events = [
    dead.published_at && { at: dead.published_at, text: "published" },
    { at: dead.dead_lettered_at, text: `dead-lettered: ${dead.reason}`, kind: "bad" },
    ...dead.history.map((each) => ({
      at: each.at, text: [each.action, each.detail].filter(Boolean).join(" "), by: each.by,
    })),
  ].filter(Boolean).sort((a, b) => new Date(a.at) - new Date(b.at));
  return h("ol", { class: "history" }, events.map((each, number) =>
    h("li", { key: number, class: each.kind ?? "" },
      h("span", null, each.text, each.by && h("span", { class: "under" }, each.by)),
      h("span", { class: "soft nowrap" }, when(each.at)))));
}

function payload(dead, shown, context, mayAct) {
  const own = shown.own;
  const canEdit = mayAct && dead.data != null && dead.payload === "full" && (dead.state === "open" || dead.state === "archived");
  const save = (data) => (event) => act(event, async () => {
    const { difference } = await post(pathOf(["dead-letters", "entry", dead.id, "edit"]), { data });
    own.editing = null;
    own.difference = difference;
    toast(data === null ? "The next replay publishes the original." : "The next replay publishes the edited data. The original is kept.", "good");
    context.refresh();
  });
  if (own.editing != null) {
    return panel("Data for the next replay", { key: "data" }, h("div", { class: "pad stackup" },
      h("textarea", {
        class: "code", rows: Math.min(30, own.editing.split("\n").length + 2), value: own.editing,
        "aria-label": "Data as JSON", spellcheck: "false",
        oninput: (event) => { own.editing = event.target.value; },
      }),
      h("div", { class: "row end" },
        button("Discard", () => { own.editing = null; context.render(); }),
        button("Save for the next replay", (event) => save(own.editing)(event), { kind: "primary" }))));
  }
  return [
    panel(dead.edited != null ? "Original data" : "Data", {
      key: "data",
      actions: canEdit && h("span", { class: "row" },
        dead.edited != null && sureButton("Restore the original", "Discard the edit?", save(null), { kind: "small" }),
        button("Edit", () => { own.editing = dead.edited ?? dead.data; context.render(); }, { kind: "small" })),
    },
    dead.data != null ? json(dead.data)
      : dead.data_base64 ? json(dead.data_base64)
        : h("p", { class: "soft pad" }, "The index keeps no copy of it; the message in the dead-letter subscription has it."),
    dead.payload === "preview" && h("p", { class: "soft pad" }, "Only the beginning: the message in the dead-letter subscription has all of it.")),
    dead.edited != null && panel("Edited data", { key: "edited" }, json(dead.edited)),
    dead.edited != null && own.difference && panel("Difference", { key: "difference" }, diff(own.difference)),
  ];
}

const diff = (text) => h("pre", null, text.split("\n").map((line, number) =>
  h("span", { key: number, class: line.startsWith("+") ? "diff-add" : line.startsWith("-") ? "diff-cut" : "" }, `${line}\n`)));

function redirect(dead, shown, context) {
  const own = shown.own;
  return h("div", { class: "bar panel", key: "redirect" },
    h("label", { class: "check" }, "Replay it to",
      h("select", { value: own.target ?? "", onchange: (event) => { own.target = event.target.value; context.render(); } },
        h("option", { value: "", key: "" }, "another handler…"),
        own.handlers.filter((each) => each.name !== dead.handler).map((each) =>
          h("option", { key: each.name, value: each.name }, each.name)))),
    button("Redirect", (event) => act(event, async () => {
      const job = await post("dead-letters/redirect", { ids: [dead.id], state: dead.state, target: own.target });
      toast(`The redirect to ${job.target} has begun.`, "good");
      own.redirecting = false;
      context.refresh();
    }), { kind: "small primary", disabled: !own.target }));
}
