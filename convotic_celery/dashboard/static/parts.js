// What several views are made of.

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { count } from "./format.js";

export const link = (parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

export const heading = (title, ...rest) =>
  h("header", { class: "heading" }, h("h1", null, title), h("div", { class: "actions" }, rest));

export const panel = (title, props, ...children) =>
  h(
    "section",
    { class: `panel ${props?.class ?? ""}`, key: props?.key ?? title },
    title && h("header", { class: "panel-head" }, h("h2", null, title), props?.actions),
    children,
  );

export const empty = (title, ...text) =>
  h("div", { class: "empty" }, h("strong", null, title), h("p", null, text));

export const note = (kind, ...text) => h("p", { class: `note ${kind}`, role: "note" }, text);

export const badge = (text, kind = "") => h("span", { class: `badge ${kind}` }, text);

export const mono = (text, props) => h("code", props ?? null, text);

/** A name with dots, which may break after each of them. */
export const dotted = (name) =>
  h("code", null, name.split(/(?<=[.-])/).map((part, number) => [number > 0 && h("wbr"), part]));

/** The first cell of a row: how it is, what it is, and a line below. */
export const named = (kind, ...rest) =>
  h("div", { class: "name" },
    h("span", { class: `dot ${kind}`, "aria-hidden": "true" }), h("div", null, rest));

/** A number in a table; zero is faint, unknown is a dash that says why. */
export const figure = (value, kind = "", why = "Not known") =>
  value == null
    ? h("span", { class: "faint", title: why }, "–")
    : h("span", { class: value ? kind : "faint" }, count(value));

export const facts = (rows) =>
  h(
    "dl",
    { class: "facts" },
    rows.filter(Boolean).map(([name, value]) => [
      h("dt", { key: `t${name}` }, name),
      h("dd", { key: `d${name}` }, value),
    ]),
  );

export function button(text, onclick, props = {}) {
  const { kind = "", ...rest } = props;
  return h("button", { type: "button", class: `button ${kind}`, onclick, ...rest }, text);
}

/** A button that asks once more before it acts. */
export function sureButton(text, question, onclick, props = {}) {
  const { kind = "", ...rest } = props;
  return h("button", {
    type: "button",
    class: `button ${kind}`,
    ...rest,
    onclick: (event) => {
      const element = event.currentTarget;
      if (element.$armed) {
        disarm(element, text);
        onclick(event);
        return;
      }
      element.$armed = setTimeout(() => disarm(element, text), 4000);
      element.firstChild.data = question;
      element.classList.add("danger");
    },
  }, text);
}

function disarm(element, text) {
  clearTimeout(element.$armed);
  element.$armed = 0;
  element.firstChild.data = text;
  element.classList.remove("danger");
}

/** A short text that a click copies. */
export const copyable = (text, shown = text) =>
  h("button", {
    type: "button",
    class: "copy",
    title: `Copy ${text}`,
    onclick: async (event) => {
      const element = event.currentTarget;
      try {
        await navigator.clipboard.writeText(text);
        element.classList.add("copied");
        setTimeout(() => element.classList.remove("copied"), 1200);
      } catch {
        getSelection().selectAllChildren(element.firstChild);
      }
    },
  }, h("code", null, shown), icon("copy"));

export function toast(text, kind = "") {
  const element = document.createElement("div");
  element.className = `toast ${kind}`;
  element.textContent = text;
  document.getElementById("toasts").append(element);
  setTimeout(() => element.remove(), kind === "bad" ? 9000 : 5000);
}

/** Run an action of a button: it is disabled meanwhile, and what goes wrong is shown. */
export async function act(event, action) {
  const element = event?.currentTarget;
  if (element) element.disabled = true;
  try {
    return await action();
  } catch (error) {
    toast(error.message, "bad");
    return undefined;
  } finally {
    if (element) element.disabled = false;
  }
}

export const more = (page, onclick) =>
  page.next_cursor
    ? h("div", { class: "more" }, button("Show more", onclick))
    : null;
