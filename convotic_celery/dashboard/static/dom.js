// Elements from descriptions, and as few changes to the document as a new description needs.
// So what is focused, selected or scrolled stays as it is while figures change around it.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "circle", "line", "polyline", "rect", "g"]);

/** Describe an element. `props.key` tells siblings apart; `onclick` and the like are handlers. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: flatten(children) };
}

function flatten(children, found = []) {
  for (const child of children) {
    if (Array.isArray(child)) flatten(child, found);
    else if (child !== null && child !== undefined && child !== false && child !== true) {
      found.push(typeof child === "object" ? child : { text: String(child) });
    }
  }
  return found;
}

/** Make the children of an element be what is described. */
export function patch(parent, described) {
  const wanted = flatten([described]);
  const before = new Map();
  const counts = {};
  const name = (node) => {
    if (node.key !== undefined) return `${node.tag}=${node.key}`;
    const kind = node.tag ?? "#text";
    counts[kind] = (counts[kind] ?? 0) + 1;
    return `${kind}#${counts[kind]}`;
  };
  for (const [known, node] of parent.$nodes ?? []) before.set(known, node);
  // Text that a page's author has put there goes.
  if (!parent.$nodes) parent.textContent = "";
  const now = wanted.map((node) => {
    const known = name(node);
    const element = before.get(known) ?? create(node);
    before.delete(known);
    return [known, element, node];
  });
  // What goes, goes first: else all that follows would be moved, and lose its focus and its click.
  for (const element of before.values()) element.remove();
  let place = parent.firstChild;
  for (const [, element, node] of now) {
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
    update(element, node);
  }
  parent.$nodes = now;
}

function create(node) {
  if (node.tag === undefined) return document.createTextNode(node.text);
  return SVG_TAGS.has(node.tag)
    ? document.createElementNS(SVG, node.tag)
    : document.createElement(node.tag);
}

function update(element, node) {
  if (node.tag === undefined) {
    if (element.data !== node.text) element.data = node.text;
    return;
  }
  const before = element.$props ?? {};
  for (const name of Object.keys(before)) {
    if (!(name in node.props)) setProperty(element, name, null);
  }
  // Children first: a select has its value once it has its options. What a button asks stays until
  // it is answered.
  if (!element.$armed) patch(element, node.children);
  for (const [name, value] of Object.entries(node.props)) {
    if (before[name] !== value || name === "value" || name === "checked") {
      setProperty(element, name, value);
    }
  }
  element.$props = node.props;
}

function setProperty(element, name, value) {
  if (name === "key") return;
  if (name.startsWith("on")) {
    element[name] = value;
  } else if (name === "value") {
    // What a person types is theirs.
    if (element.value !== (value ?? "") && document.activeElement !== element) {
      element.value = value ?? "";
    }
  } else if (name === "checked") {
    element.checked = Boolean(value);
  } else if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
  } else {
    element.setAttribute(name, value === true ? "" : value);
  }
}
