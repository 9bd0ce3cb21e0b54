// Runs of workflows, and one run step by step.

import { get, pathOf, post } from "../api.js";
import { h } from "../dom.js";
import { json, pretty, when } from "../format.js";
import { icon } from "../icons.js";
import { act, badge, button, copyable, empty, facts, heading, link, mono, more, note, panel, toast } from "../parts.js";

const KINDS = { running: "info", completed: "good", failed: "bad" };
const view = { status: "", name: "" };

export const title = () => "Workflow runs";

export const load = (shown, signal) =>
  get(pathOf(["workflows"], { ...view, limit: shown.own.limit ?? 50 }), signal);

export function render(data, shown, context) {
  const choose = (change) => {
    Object.assign(view, change);
    context.render();
    context.refresh();
  };
  const isAll = !view.status && !view.name;
  return [
    heading("Workflow runs"),
    (data.workflows.length > 0 || data.items.length > 0) && h("div", { class: "chips", role: "group", "aria-label": "Filter" },
      ["", "running", "completed", "failed"].map((status) =>
        h("button", {
          type: "button", key: status, class: "chip", "aria-pressed": String(view.status === status),
          onclick: () => choose({ status }),
        }, status || "all")),
      data.workflows.length > 1 && h("select", {
        "aria-label": "Workflow", value: view.name, onchange: (event) => choose({ name: event.target.value }),
      }, h("option", { value: "", key: "" }, "all workflows"),
      data.workflows.map((name) => h("option", { value: name, key: name }, name)))),
    data.items.length ? h("div", { class: "panel flush", key: "table" },
      h("table", { class: "list" },
        h("thead", null, h("tr", null, ["Workflow", "Status", "Step", "Started", "Changed"].map((text, i) =>
          h("th", { key: text, scope: "col", class: i > 2 ? "n wide" : i === 2 ? "wide" : "" }, text)))),
        h("tbody", null, data.items.map(row))))
      : isAll ? empty("No workflow has run yet", "Start one: ", mono('await ctx.workflows.start("name", …)'), ". Its steps and results are shown here.")
        : empty("Nothing matches", "No run matches."),
    more(data, () => {
      shown.own.limit = Math.min(500, (shown.own.limit ?? 50) + 100);
      context.refresh();
    }),
  ];
}

function row(run) {
  return h("tr", { key: run.id },
    h("td", null,
      h("a", { class: "row-link", href: link(["workflows", run.id]) }, run.name),
      h("span", { class: "under" }, mono(run.id))),
    h("td", null, badge(run.status, KINDS[run.status])),
    h("td", { class: "wide" }, run.step_name ? mono(run.step_name) : "–"),
    h("td", { class: "n wide nowrap" }, when(run.created_at)),
    h("td", { class: "n wide nowrap" }, when(run.updated_at)));
}

export const one = {
  title: () => "Workflow run",
  load: (shown, signal) => get(pathOf(["workflows", shown.parameters[0]]), signal),
  render: (run, _shown, context) => [
    h("a", { class: "back", href: "#/workflows" }, icon("back"), "Workflow runs"),
    heading(run.name, badge(run.status, KINDS[run.status]),
      run.status !== "completed" && !context.deployment?.read_only &&
        button(run.status === "failed" ? "Resume" : "Publish its next step again", (event) => act(event, async () => {
          await post(pathOf(["workflows", run.id, "resume"]));
          toast("The next step has been published.", "good");
          context.refresh();
        }))),
    run.error && note("bad", run.error),
    panel("Run", null, facts([
      ["Id", copyable(run.id)],
      ["Started", when(run.created_at)],
      ["Changed", when(run.updated_at)],
    ])),
    panel("Steps", null, steps(run)),
    run.is_hidden ? note("", "Input and results are hidden: CONVOTIC_DASHBOARD_PAYLOADS is false.")
      : panel("Input", null, json(pretty(run.input))),
  ],
};

function steps(run) {
  const names = run.steps.length ? run.steps
    : [...new Set([...Object.keys(run.results), ...(run.step_name && run.status !== "completed" ? [run.step_name] : [])])];
  if (!names.length) return h("p", { class: "soft pad" }, "The first step has not begun.");
  return h("ol", { class: "steps" }, names.map((name, number) => {
    const isDone = name in run.results;
    const isNow = !isDone && (run.steps.length ? number === run.step : name === run.step_name);
    const kind = isDone ? "good" : !isNow ? "" : run.status === "failed" ? "bad" : "info";
    return h("li", { key: name, class: kind },
      h("span", { class: "step-mark", "aria-hidden": "true" },
        isDone ? icon("done") : kind === "bad" ? icon("failed") : null),
      h("div", { class: "step-body" },
        h("strong", null, mono(name)),
        h("span", { class: "soft" }, isDone ? "done" : kind === "bad" ? "failed" : isNow ? (run.step_name === name ? "running" : "next") : "not begun"),
        isDone && !run.is_hidden && run.results[name] !== null && json(pretty(run.results[name]))));
  }));
}
