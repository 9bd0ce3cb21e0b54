// Which view the address asks for, and its figures, again and again while somebody looks.

import { get } from "./api.js";
import { h, patch } from "./dom.js";
import { plural } from "./format.js";
import { icon } from "./icons.js";
import { badge, empty, note } from "./parts.js";
import * as deadLetters from "./views/dead-letters.js";
import * as deadLetter from "./views/dead-letter.js";
import * as delayed from "./views/delayed.js";
import * as handler from "./views/handler.js";
import * as handlers from "./views/handlers.js";
import * as publish from "./views/publish.js";
import * as workers from "./views/workers.js";
import * as workflows from "./views/workflows.js";

const REFRESH_MILLISECONDS = 2000;

// A view has title, load(...) for its figures, and render(...) that describes it.
const VIEWS = [
  [/^$/, handlers],
  [/^handlers\/([^/]+)$/, handler],
  [/^dead-letters$/, deadLetters],
  [/^dead-letters\/group\/([^/]+)$/, deadLetters],
  [/^dead-letters\/handler\/([^/]+)$/, { ...deadLetters, byHandler: true, load: deadLetters.loadHandler }],
  [/^dead-letters\/([^/]+)$/, deadLetter],
  [/^delayed$/, delayed],
  [/^delayed\/([^/]+)$/, { ...delayed, ...delayed.one }],
  [/^workflows$/, workflows],
  [/^workflows\/([^/]+)$/, { ...workflows, ...workflows.one }],
  [/^workers$/, workers],
  [/^publish$/, publish],
  [/^publish\/([^/]+)$/, publish],
];

const NAVIGATION = [
  ["", "Handlers", "handlers"],
  ["dead-letters", "Dead letters", "deadLetters"],
  ["delayed", "Delayed", "delayed"],
  ["workflows", "Workflows", "workflows"],
  ["workers", "Workers", "workers"],
];

const state = {
  deployment: null,
  badges: {},
  // What each address showed last, so that going back shows something at once.
  known: new Map(),
  problem: "",
  isPaused: false,
};
let current = null;
let timer = 0;
let loading = null;

const address = () => decodeURI(location.hash.replace(/^#\/?/, ""));

function find(path) {
  const [pure] = location.hash.replace(/^#\/?/, "").split("?");
  for (const [pattern, view] of VIEWS) {
    const match = pure.match(pattern);
    if (match) return { path, view, parameters: match.slice(1).map(decodeURIComponent), own: {} };
  }
  return { path, view: null, parameters: [], own: {} };
}

async function refresh() {
  clearTimeout(timer);
  loading?.abort();
  const controller = (loading = new AbortController());
  const shown = current;
  const isOver = () => shown !== current || controller !== loading;
  try {
    state.deployment ??= await get("deployment", controller.signal);
    const [data, badges] = await Promise.all([
      shown.view?.load?.(shown, controller.signal),
      get("badges", controller.signal),
    ]);
    if (isOver()) return;
    state.badges = badges;
    state.known.set(shown.path, data ?? null);
    state.problem = "";
    shown.error = null;
  } catch (error) {
    if (isOver()) return;
    if (error.status) shown.error = error;
    else state.problem = "The dashboard does not answer. Is it still running?";
  }
  render();
  if (!document.hidden && !state.isPaused) timer = setTimeout(refresh, REFRESH_MILLISECONDS);
}

function navigate() {
  const path = address();
  if (current?.path !== path) {
    current = find(path);
    scrollTo(0, 0);
  }
  render();
  refresh();
}

const context = {
  get deployment() { return state.deployment; },
  get badges() { return state.badges; },
  refresh,
  render,
};

function render() {
  const data = state.known.get(current.path);
  const title = current.view?.title?.(current) ?? "Not found";
  document.title = `${title} · Convotic`;
  patch(document.getElementById("app"), [
    sidebar(),
    h("main", { id: "main", tabindex: "-1", key: "main" },
      state.problem && note("bad", state.problem),
      h("div", { key: current.path, class: "view" }, body(data)),
    ),
  ]);
}

function body(data) {
  if (!current.view) return empty("There is no such page", "Choose one from the menu.");
  if (current.error?.status === 404) return empty("Not found", current.error.message);
  const parts = [];
  if (current.error) parts.push(note("bad", current.error.message));
  if (data !== undefined) parts.push(current.view.render(data, current, context));
  else if (!current.error && !state.problem) parts.push(h("p", { class: "soft loading" }, "Loading…"));
  return parts;
}

function sidebar() {
  const { deployment, badges } = state;
  const section = current.path.split(/[/?]/)[0];
  const isHere = (path) => section === path || (path === "" && section === "handlers");
  return h("nav", { class: "side", key: "side", "aria-label": "Dashboard" },
    h("a", { class: "brand", href: "#/" },
      h("svg", { viewBox: "0 0 32 32", class: "logo", "aria-hidden": "true" },
        h("rect", { width: 32, height: 32, rx: 8 }),
        h("path", { d: "M21.5 11.2a7.6 7.6 0 1 0 0 9.6" }),
        h("circle", { cx: 21.6, cy: 16, r: 2.2 })),
      h("span", null, "Convotic")),
    h("div", { class: "links" }, NAVIGATION.map(([path, name, symbol]) => {
      const number = badges[path];
      return h("a", {
        href: `#/${path}`, key: path, "aria-current": isHere(path) ? "page" : null,
      }, icon(symbol), h("span", null, name),
      number ? badge(number > 9999 ? "9,999+" : number, path === "dead-letters" ? "bad" : "") : null);
    })),
    deployment && !deployment.read_only &&
      h("a", { class: "button primary publish", href: "#/publish", key: "publish" }, icon("publish"),
        h("span", null, "Publish")),
    h("div", { class: "where", key: "where" },
      deployment && [
        h("strong", { title: "Project" }, deployment.project),
        h("span", null, deployment.broker),
        deployment.prefix && h("span", null, `prefix ${deployment.prefix}`),
        deployment.data_dir && h("span", { class: "path", title: deployment.data_dir }, tail(deployment.data_dir)),
        deployment.environment !== "development" && h("span", null, deployment.environment),
        deployment.read_only && badge("read-only"),
      ],
      h("button", {
        type: "button", class: `live ${state.problem ? "bad" : state.isPaused ? "paused" : ""}`,
        "aria-pressed": String(!state.isPaused),
        title: state.isPaused ? "Resume refreshing" : "Stop refreshing",
        onclick: () => {
          state.isPaused = !state.isPaused;
          render();
          if (!state.isPaused) refresh();
        },
      }, h("i", null), state.problem ? "No answer" : state.isPaused ? "Paused" : "Live"),
    ),
  );
}

/** Return the last parts of a path, which tell it from others. */
const tail = (path) => {
  const parts = path.split("/").filter(Boolean);
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : path;
};

addEventListener("hashchange", navigate);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !state.isPaused) refresh();
});
document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "/" && !isTyping) {
    const field = document.querySelector("input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  } else if (event.key === "Escape" && isTyping) {
    event.target.blur();
  }
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
navigate();
