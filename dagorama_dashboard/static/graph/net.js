// Requests for JSON, and errors that say what to do.

/** A request that failed, in one sentence, and what the reader can do. */
export class LoadError extends Error {
  /** @param {string} message @param {string} advice @param {boolean} [login] a login would help */
  constructor(message, advice, login = false) {
    super(message);
    this.advice = advice;
    this.login = login;
  }
}

const ADVICE = /** @type {Record<number, string>} */ ({
  401: "Sign in again; your session has ended.",
  403: "Sign in with a token that may look at instances.",
  404: "The instance may have been deleted. Go back to the list of instances.",
  502: "The broker does not answer. Start it, or check its address, and try again.",
  503: "The broker does not answer. Start it, or check its address, and try again.",
  504: "The broker took too long to answer. Try again.",
});

/**
 * Get JSON and the clock of the server.
 * @param {string} url
 * @returns {Promise<{data: any, clock: number}>} clock: how far the server's clock is ahead, in milliseconds
 */
export async function getJson(url) {
  let answer;
  try {
    answer = await fetch(url, { headers: { Accept: "application/json" }, cache: "no-store" });
  } catch {
    throw new LoadError("The dashboard does not answer.", "Check that `dagorama dashboard` is running, and try again.");
  }
  if (!answer.ok) throw await refusal(answer);
  const date = Date.parse(answer.headers.get("Date") ?? "");
  try {
    return { data: await answer.json(), clock: Number.isNaN(date) ? 0 : date + 500 - Date.now() };
  } catch {
    throw new LoadError("The dashboard sent something that is no JSON.", "Load the page again; you may be signed out.",
      true);
  }
}

/** @param {Response} answer */
async function refusal(answer) {
  const type = answer.headers.get("Content-Type") ?? "";
  const text = type.startsWith("text/plain") ? (await answer.text().catch(() => "")).trim() : "";
  const reason = text ? `: ${text.slice(0, 500)}` : ".";
  const advice = ADVICE[answer.status] ?? "Try again. If it stays so, read the log of the dashboard.";
  return new LoadError(`The data cannot be loaded: HTTP status ${answer.status}${reason}`, advice,
    answer.status === 401 || answer.status === 403);
}

/** Decode base64 into bytes. @param {string} text */
export function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return bytes;
}
