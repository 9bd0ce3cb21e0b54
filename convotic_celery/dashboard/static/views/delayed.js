// Delayed messages: what is published when, and one with all its data.

import { get, pathOf, post } from "../api.js";
import { h } from "../dom.js";
import { count, json, plural, when } from "../format.js";
import { icon } from "../icons.js";
import {
  act, badge, copyable, empty, facts, heading, link, mono, more, note, panel, sureButton, toast,
} from "../parts.js";

export const title = () => "Delayed messages";

export const load = (shown, signal) => get(pathOf(["delayed"], { limit: shown.own.limit ?? 50 }), signal);

export function render(data, shown, context) {
  if (!data.items.length) {
    return [heading("Delayed messages"), empty(
      "No delayed messages",
      "Messages published with ", mono("delay="), " are kept in the store and listed here until a worker publishes them.",
    )];
  }
  return [
    heading("Delayed messages", h("span", { class: "soft" }, plural(data.total, "message"))),
    h("div", { class: "panel flush", key: "table" },
      h("table", { class: "list" },
        h("thead", null, h("tr", null,
          ["Due", "Topic", "Data", ""].map((text, i) =>
            h("th", { key: i, scope: "col", class: i === 2 ? "wide" : "" }, text)))),
        h("tbody", null, data.items.map(row)))),
    data.next_cursor && more(data, () => {
      shown.own.limit = Math.min(500, (shown.own.limit ?? 50) + 100);
      context.refresh();
    }),
  ];
}

function row(each) {
  return h("tr", { key: each.id },
    h("td", { class: "nowrap" }, when(each.due_at)),
    h("td", null, h("a", { class: "row-link", href: link(["delayed", each.id]) }, mono(each.topic))),
    h("td", { class: "wide preview" }, each.data == null ? h("span", { class: "soft" }, "hidden") : mono(each.data.replace(/\s+/g, " ").slice(0, 160))),
    h("td", { class: "n" }, state(each)));
}

const state = (each) => [
  each.is_taken && badge("being published", "good"),
  each.failures > 0 && badge(`failed ${plural(each.failures, "time")}`, "bad"),
];

export const one = {
  title: () => "Delayed message",
  load: (shown, signal) => get(pathOf(["delayed", shown.parameters[0]]), signal),
  render: (each, _shown, context) => [
    h("a", { class: "back", href: "#/delayed" }, icon("back"), "Delayed messages"),
    heading(h("span", null, "Due ", when(each.due_at)), state(each),
      !context.deployment?.read_only && sureButton("Cancel", "Really cancel?", (event) =>
        act(event, async () => {
          const { cancelled } = await post(pathOf(["delayed", each.id, "cancel"]));
          toast(cancelled ? "Cancelled: it is never published." : "Too late: it was published, or is being published.", cancelled ? "good" : "bad");
          location.hash = "#/delayed";
        }))),
    each.failures > 0 && note("bad", `It could not be published ${plural(each.failures, "time")}; it will be tried again. The worker's log says why.`),
    panel("Message", null, facts([
      ["Topic", copyable(each.topic)],
      ["Schedule id", copyable(each.id)],
      each.ordering_key && ["Ordering key", copyable(each.ordering_key)],
      ["Size", `${count(each.size)} bytes`],
    ])),
    attributes(each.attributes),
    panel("Data", null, json(each.data)),
  ],
};

export const attributes = (found) =>
  found && Object.keys(found).length > 0 &&
  panel("Attributes", null, facts(Object.entries(found).map(([name, value]) => [mono(name), copyable(value)])));
