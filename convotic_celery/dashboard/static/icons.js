// A few lines each, in the colour of the text.

import { h } from "./dom.js";

const PATHS = {
  handlers: "M4 6h16M4 12h16M4 18h10",
  deadLetters: "M12 8v5m0 3.5v.5M10.3 3.9 2.6 17.2A2 2 0 0 0 4.3 20h15.4a2 2 0 0 0 1.7-2.8L13.7 3.9a2 2 0 0 0-3.4 0Z",
  delayed: "M12 7v5l3.2 2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  workflows: "M6 4v10a4 4 0 0 0 4 4h8m0 0-3-3m3 3-3 3M6 8h8m0 0-2.5-2.5M14 8l-2.5 2.5",
  workers: "M5 5h14v6H5zM5 13h14v6H5zM8 8h.01M8 16h.01M12 8h4M12 16h4",
  publish: "m4 12 16-8-6 16-3-6.5L4 12Zm7 1.5L20 4",
  back: "M15 5l-7 7 7 7",
  search: "m20 20-4.2-4.2M10.8 17a6.2 6.2 0 1 0 0-12.4 6.2 6.2 0 0 0 0 12.4Z",
  copy: "M9 9h10v11H9zM5 15V4h10",
  done: "m5 12.5 4.5 4.5L19 7.5",
  failed: "M7 7l10 10M17 7 7 17",
};

export function icon(name) {
  return h(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    h("path", { d: PATHS[name] }),
  );
}
