// The dashboard's own JSON, and nothing else.

export class ApiError extends Error {
  constructor(status, content) {
    super(content?.error ?? `The dashboard answered ${status}.`);
    this.status = status;
    this.content = content ?? {};
  }
}

async function call(path, options) {
  const response = await fetch(`api/${path}`, { ...options, credentials: "same-origin" });
  let content = null;
  try {
    content = await response.json();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error; // it was aborted on its way, or broke off
    // Not JSON: a gateway's page, say.
  }
  if (!response.ok) throw new ApiError(response.status, content);
  return content;
}

export const get = (path, signal) => call(path, { signal });

export const post = (path, body = {}) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

/** Return a path of the given parts and parameters; empty ones are left out. */
export function pathOf(parts, parameters = {}) {
  const query = new URLSearchParams(
    Object.entries(parameters).filter(([, value]) => value !== "" && value != null),
  ).toString();
  return parts.map(encodeURIComponent).join("/") + (query && `?${query}`);
}
