// Requests to this node. The token goes in a header, never in an address, and is kept for this tab only.

const TOKEN_KEY = "metasrv.token";

/** An answer that is no success; the text is the node's own sentence. */
export class ApiError extends Error {
  constructor(status, text) {
    super(text || `the node answered ${status}`);
    this.status = status;
  }
}

export function token() {
  return sessionStorage.getItem(TOKEN_KEY) ?? "";
}

export function useToken(text) {
  if (text) sessionStorage.setItem(TOKEN_KEY, text);
  else sessionStorage.removeItem(TOKEN_KEY);
}

function headers(more = {}) {
  const known = token();
  return known ? { Authorization: `Bearer ${known}`, ...more } : more;
}

/** A successful answer. Raises ApiError for another one, TypeError when the node cannot be reached. */
export async function request(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", ...options, headers: headers(options.headers) });
  if (!answer.ok) throw new ApiError(answer.status, await sentence(answer));
  return answer;
}

/** Bare text, or what a problem in JSON says. */
async function sentence(answer) {
  const text = (await answer.text()).trim();
  if (!(answer.headers.get("content-type") ?? "").includes("json")) return text;
  try {
    const problem = JSON.parse(text);
    return problem.detail ?? problem.title ?? text;
  } catch {
    return text;
  }
}

export async function getJson(path, signal) {
  return (await request(path, { signal })).json();
}

export async function getText(path, signal) {
  return (await request(path, { signal })).text();
}

/** Do something: a POST that no form of another page can make. */
export function act(path, signal) {
  return request(path, { method: "POST", headers: { "X-Metasrv-Action": "console" }, signal });
}

/** Set something: JSON by a PUT that no form of another page can make. */
export function put(path, content, signal) {
  const headers = { "X-Metasrv-Action": "console", "Content-Type": "application/json" };
  return request(path, { method: "PUT", headers, body: JSON.stringify(content), signal });
}

/** Have the browser save what the node answers; resolves to the file's name and size. */
export async function download(path, signal) {
  const answer = await request(path, { headers: { "X-Metasrv-Action": "console" }, signal });
  const name = /filename="([\w.-]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "metasrv";
  const content = await answer.blob();
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return { name, size: content.size };
}

/** The paths that this node's API describes, with their methods; empty when the description cannot be had. */
export async function describedPaths() {
  try {
    return (await getJson("/openapi.json")).paths ?? {};
  } catch {
    return {};
  }
}
