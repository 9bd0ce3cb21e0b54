// Numbers, times and JSON, as people read them.

import { h } from "./dom.js";

const numbers = new Intl.NumberFormat("en");
const absolute = new Intl.DateTimeFormat(undefined, {
  dateStyle: "medium",
  timeStyle: "long",
});

export const count = (value) => (value == null ? "–" : numbers.format(value));

/** Return "1 message", "2 messages". */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** Return a duration with at most two units. */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 0.001) return "0 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [
    Math.floor(whole / 86400), Math.floor((whole % 86400) / 3600), Math.floor((whole % 3600) / 60),
  ];
  if (days) return `${days} d${days < 10 && hours ? ` ${hours} h` : ""}`;
  if (hours) return `${hours} h${minutes ? ` ${minutes} min` : ""}`;
  if (minutes) return `${minutes} min${minutes < 10 && whole % 60 ? ` ${whole % 60} s` : ""}`;
  return `${whole} s`;
}

/** Show a time as its distance from now; the time itself on hover. */
export function when(moment) {
  if (moment == null) return h("span", { class: "soft" }, "–");
  const date = new Date(typeof moment === "number" ? moment * 1000 : moment);
  const seconds = (date - Date.now()) / 1000;
  const text =
    Math.abs(seconds) < 2 ? "now"
      : seconds > 0 ? `in ${duration(Math.round(seconds))}`
        : `${duration(Math.round(-seconds))} ago`;
  return h("time", { datetime: date.toISOString(), title: absolute.format(date) }, text);
}

const TOKEN = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const MAX_COLOURED = 100_000;

/** Show JSON text with colours; large text without. */
export function json(text, props = {}) {
  if (text == null) return h("p", { class: "soft" }, "Hidden.");
  const parts = [];
  let end = 0;
  if (text.length <= MAX_COLOURED) {
    for (const match of text.matchAll(TOKEN)) {
      if (match.index > end) parts.push(text.slice(end, match.index));
      const kind = match[2] ? "j-key" : match[1] ? "j-text" : match[3] ? "j-word" : "j-number";
      parts.push(h("span", { class: kind }, match[1] ?? match[0]));
      if (match[2]) parts.push(match[2]);
      end = match.index + match[0].length;
    }
  }
  parts.push(text.slice(end));
  return h("pre", { class: "json", tabindex: "0", ...props }, h("code", null, parts));
}

/** Return a value as indented JSON. */
export const pretty = (value) => JSON.stringify(value, null, 2);
