// Publish a message by hand, beginning with an example that fits the handler.

import { get, pathOf, post } from "../api.js";
import { h } from "../dom.js";
import { pretty } from "../format.js";
import { act, button, copyable, empty, heading, link, mono, note, panel } from "../parts.js";

export const title = () => "Publish a message";

export async function load(shown, signal) {
  const [name] = shown.parameters;
  shown.own.handlers ??= (await get("handlers", signal)).handlers;
  const form = (shown.own.form ??= {
    handler: name ?? shown.own.handlers[0]?.name ?? "",
    topic: "", data: "", attributes: [], ordering_key: "", delay: "", only_handler: false,
  });
  await choose(form, shown, signal);
  return shown.own;
}

/** Get what is known of the chosen handler, and its example where nobody has typed yet. */
async function choose(form, shown, signal) {
  if (!form.handler || shown.own.about?.name === form.handler) return;
  shown.own.about = await get(pathOf(["handlers", form.handler]), signal);
  if (!form.data || form.data === form.example) form.data = form.example = pretty(shown.own.about.example);
}

export function render(own, shown, context) {
  const { form, about } = own;
  if (context.deployment?.read_only) return [heading("Publish a message"), empty("Read-only", "This dashboard can't change anything.")];
  const change = (name) => (event) => {
    form[name] = event.target.type === "checkbox" ? event.target.checked : event.target.value;
    own.answer = null;
    context.render();
  };
  return [
    heading("Publish a message"),
    h("form", {
      class: "form",
      onsubmit: (event) => {
        event.preventDefault();
        send(own, context, event.submitter?.value === "anyway");
      },
    },
    h("label", { class: "field" }, h("span", null, "To"),
      h("select", {
        value: form.handler,
        onchange: async (event) => {
          form.handler = event.target.value;
          own.answer = null;
          await act(null, () => choose(form, shown));
          context.render();
        },
      }, own.handlers.map((each) => h("option", { key: each.name, value: each.name }, each.name)),
      h("option", { value: "", key: "" }, "another topic…"))),
    !form.handler && h("label", { class: "field" }, h("span", null, "Topic"),
      h("input", { type: "text", value: form.topic, oninput: change("topic"), required: true, spellcheck: "false" })),
    form.handler && about && h("div", { class: "reach" },
      h("label", { class: "check" },
        h("input", { type: "checkbox", checked: form.only_handler, onchange: change("only_handler") }),
        h("span", null, "Only this handler")),
      h("span", { class: "soft" }, form.only_handler
        ? "Other subscriptions of its topic filter the message out."
        : reach(about))),
    h("label", { class: "field" }, h("span", null, "Data, as JSON"),
      h("textarea", {
        class: "code", rows: Math.min(24, Math.max(8, form.data.split("\n").length + 1)),
        value: form.data, oninput: change("data"), spellcheck: "false", required: true,
      })),
    attributes(form, context),
    h("div", { class: "row" },
      h("label", { class: "field" }, h("span", null, "Ordering key"),
        h("input", { type: "text", value: form.ordering_key, oninput: change("ordering_key"), placeholder: "none", spellcheck: "false" })),
      h("label", { class: "field" }, h("span", null, "Delay, in seconds"),
        h("input", { type: "number", min: 0, step: "any", value: form.delay, oninput: change("delay"), placeholder: "none", disabled: form.only_handler }))),
    problem(own.answer),
    h("div", { class: "row end" },
      form.example && form.data !== form.example && button("Reset to example", () => {
        form.data = form.example;
        own.answer = null;
        context.render();
      }),
      own.answer?.may_publish_anyway && h("button", { class: "button", value: "anyway", disabled: own.isSending }, "Publish anyway"),
      h("button", { class: "button primary", disabled: own.isSending }, form.delay && !form.only_handler ? "Publish later" : "Publish"))),
    own.sent?.length > 0 && panel("Published from here", null,
      h("ul", { class: "sent" }, own.sent.map((each) =>
        h("li", { key: each.id }, each.isDelayed
          ? h("a", { href: link(["delayed", each.id]) }, "delayed") : h("span", { class: "soft" }, "message id"),
        copyable(each.id), h("span", { class: "soft" }, "to ", mono(each.to)))))),
  ];
}

const reach = (about) => about.siblings.length
  ? `Every subscription of ${about.topic} gets it, ${about.siblings.join(", ")} too.`
  : `Every subscription of ${about.topic} gets it.`;

function attributes(form, context) {
  const rows = [...form.attributes, ["", ""]];
  return h("fieldset", { class: "field" }, h("legend", null, "Attributes"),
    rows.map(([name, value], number) => h("div", { class: "pair", key: number },
      ["name", "value"].map((kind, part) => h("input", {
        type: "text", key: kind, placeholder: kind, "aria-label": `Attribute ${number + 1}, ${kind}`,
        value: part ? value : name, spellcheck: "false",
        oninput: (event) => {
          const pair = form.attributes[number] ?? (form.attributes[number] = ["", ""]);
          pair[part] = event.target.value;
          context.render();
        },
      })))));
}

const problem = (answer) => answer && note("bad", answer.error);

async function send(own, context, anyway) {
  const { form } = own;
  own.isSending = true;
  own.answer = null;
  context.render();
  try {
    const answer = await post("publish", {
      handler: form.handler,
      topic: form.handler ? "" : form.topic,
      data: form.data,
      attributes: Object.fromEntries(form.attributes.filter(([name]) => name)),
      ordering_key: form.ordering_key,
      only_handler: Boolean(form.handler && form.only_handler),
      delay_seconds: form.delay !== "" && !form.only_handler ? Number(form.delay) : null,
      even_if_invalid: anyway,
    });
    own.sent = [{ id: answer.id, isDelayed: answer.is_delayed, to: form.handler || form.topic }, ...(own.sent ?? [])].slice(0, 10);
  } catch (error) {
    own.answer = { error: error.message, ...error.content };
  }
  own.isSending = false;
  context.render();
  context.refresh();
}
