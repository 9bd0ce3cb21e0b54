// One handler: its figures, its dead letters, how it is configured, and a way to try it.

import { get, pathOf } from "../api.js";
import { h } from "../dom.js";
import { count, duration, json, pretty, when } from "../format.js";
import { icon } from "../icons.js";
import { badge, copyable, dotted, facts, figure, heading, link, mono, note, panel } from "../parts.js";
import { groupRows } from "./dead-letters.js";
import { enrich } from "./handlers.js";

export const title = (shown) => shown.parameters[0];

export async function load(shown, signal) {
  const [name] = shown.parameters;
  shown.own.about ??= await get(pathOf(["handlers", name]), signal);
  const [all, groups, outcomes] = await Promise.all([
    get("handlers", signal),
    get(pathOf(["dead-letters", "groups"], { handler: name, limit: 5 }), signal).catch(() => ({})),
    get(pathOf(["outcomes", name]), signal).catch(() => null),
  ]);
  return {
    about: shown.own.about,
    figures: enrich(all.handlers.find((each) => each.name === name) ?? {}),
    groups,
    outcomes,
    problem: all.store.problem,
  };
}

export function render({ about, figures, groups, outcomes, problem }, _shown, context) {
  const canPublish = !context.deployment?.read_only;
  return [
    h("a", { class: "back", href: "#/" }, icon("back"), "Handlers"),
    heading(dotted(about.name),
      figures.paused && badge("paused", "warn"),
      canPublish && h("a", { class: "button", href: link(["publish", about.name]) },
        icon("publish"), h("span", null, "Publish a message"))),
    problem && note("warn", problem),
    about.description && h("p", { class: "lead" }, about.description),
    h("div", { class: "tiles small" },
      number("Waiting", figure(figures.ready)),
      number("Oldest", figures.messages === 0 ? "none" : duration(figures.oldest_seconds)),
      number("Running", figure(figures.running, "good")),
      number("Succeeded", figure(figures.succeeded)),
      number("Retried", figure(figures.retried, "warn")),
      number("Dead letters", figure(figures.dead, "bad"))),
    groups.items?.length > 0 &&
      panel("Dead letters", {
        class: "attention",
        actions: h("a", { href: link(["dead-letters", "handler", about.name]) }, "All dead letters of this handler"),
      }, groupRows(groups.items, false)),
    outcomes && panel("Last outcomes", null, lastOutcomes(outcomes)),
    h("div", { class: "columns" },
      panel("Where it is", null, facts([
        ["Topic", copyable(about.topic)],
        ["Subscription", copyable(about.subscription)],
        ["Dead-letter topic", about.dead_letter_topic ? copyable(about.dead_letter_topic) : "none"],
        ["Filter", about.filter ? mono(about.filter) : "none"],
        ["Module", `${about.module} ${about.module_version}`],
        ["Defined at", copyable(about.source)],
        ["Kind", about.is_async ? "async def" : "plain def, in a thread"],
        about.siblings.length > 0 && ["Same topic", about.siblings.map((name) =>
          h("a", { key: name, href: link(["handlers", name]), class: "block" }, mono(name)))],
      ])),
      panel("Payload", { actions: badge(about.payload_type) },
        json(pretty(about.example)),
        Object.keys(about.payload_schema).length > 0 &&
          h("details", null, h("summary", null, "JSON Schema"), json(pretty(about.payload_schema))))),
    panel("Options", null, options(about.options)),
  ];
}

const number = (name, value) =>
  h("div", { class: "tile", key: name },
    h("span", { class: "tile-name" }, name), h("span", { class: "tile-value" }, value));

const KINDS = { succeeded: "good", retried: "warn", dead_lettered: "bad" };

// An error's class without its module; other reasons are sentences.
const short = (reason) => (/^[\w.]+$/.test(reason) ? reason.split(".").at(-1) : reason);

function lastOutcomes({ items, is_on: isOn }) {
  if (!items.length) {
    return h("p", { class: "soft pad" }, isOn
      ? "No outcome within the last week."
      : ["None are kept: ", mono("CONVOTIC_LAST_OUTCOMES"), " is 0."]);
  }
  return h("table", { class: "list" },
    h("thead", null, h("tr", null,
      ["Outcome", "Message", "Why", "Run", "Took", "When"].map((text, i) =>
        h("th", { key: text, scope: "col", class: ["", "", "wide", "n wide", "n wide", "n"][i] }, text)))),
    h("tbody", null, items.map((each) => h("tr", { key: `${each.message_id} ${each.at}` },
      h("td", null, badge(each.outcome.replaceAll("_", " "), KINDS[each.outcome])),
      h("td", null, each.dead_letter
        ? h("a", { class: "row-link", href: link(["dead-letters", each.dead_letter]) }, mono(each.message_id))
        : mono(each.message_id)),
      h("td", { class: "wide soft", title: each.reason }, short(each.reason)),
      h("td", { class: "n wide" }, count(each.attempt || null)),
      h("td", { class: "n wide nowrap" }, duration(each.duration_seconds)),
      h("td", { class: "n nowrap" }, when(each.at))))));
}

function options(all) {
  const table = (some) => h("table", { class: "list plain" }, h("tbody", null, some.map((each) =>
    h("tr", { key: each.name },
      h("td", null, mono(each.name)),
      h("td", null, mono(typeof each.value === "string" ? each.value : JSON.stringify(each.value))),
      h("td", { class: "wide soft" }, each.description)))));
  const chosen = all.filter((each) => each.is_set);
  return [
    chosen.length > 0 ? table(chosen) : h("p", { class: "soft pad" }, "All options have their defaults."),
    h("details", null, h("summary", null, `${all.length - chosen.length} defaults`),
      table(all.filter((each) => !each.is_set))),
  ];
}
