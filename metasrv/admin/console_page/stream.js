// The live stream of the console: one JSON object a line, read with fetch so that the token is in a header.
// Connects again after growing pauses, at once when the page is shown again, and rests while it is hidden for long.

import { ApiError, request } from "./api.js";

const PAUSE_FIRST_MS = 1000;
const PAUSE_MAX_MS = 15_000;
const SILENCE_MAX_MS = 9000; // a line comes every 2 s
const HIDDEN_MAX_MS = 60_000;
const PATH = "/v1/console/stream";

/** Each line of an answer, parsed; lines that are empty keep the connection busy and are left out. */
export async function* messages(body, onBytes = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      onBytes();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.trim()) yield JSON.parse(line);
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Pauses between attempts, in milliseconds; a little random, so that many pages do not come back together. */
export function pauseMs(attempts, random = Math.random()) {
  const longest = Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** attempts);
  return longest * (0.7 + 0.3 * random);
}

export class Live {
  #attempts = 0;
  #abort = null;
  #timer = 0;
  #resting = 0;

  /** `onMessage(object)` for each line; `onConnection(name, error)` with live, lost, busy, token, forbidden or absent. */
  constructor(onMessage, onConnection) {
    this.onMessage = onMessage;
    this.onConnection = onConnection;
    document.addEventListener("visibilitychange", () => this.#shown());
  }

  /** Connect now, whatever went before. */
  start() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#run();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  async #run() {
    const abort = new AbortController();
    this.#abort = abort;
    let watch = 0;
    const heard = () => {
      clearTimeout(watch);
      watch = setTimeout(() => abort.abort(), SILENCE_MAX_MS);
    };
    let error = null;
    try {
      heard();
      const answer = await request(PATH, { signal: abort.signal });
      for await (const message of messages(answer.body, heard)) {
        if (this.#abort !== abort) return;
        this.#attempts = 0;
        this.onMessage(message);
      }
    } catch (raised) {
      error = raised;
    } finally {
      clearTimeout(watch);
    }
    if (this.#abort === abort) this.#again(error);
  }

  #again(error) {
    this.#abort = null;
    const status = error instanceof ApiError ? error.status : 0;
    this.onConnection({ 0: "lost", 401: "token", 403: "forbidden", 404: "absent" }[status] ?? "busy", error);
    if (status === 401) return; // goes on with the next token
    this.#timer = setTimeout(() => this.#run(), pauseMs(this.#attempts));
    this.#attempts += 1;
  }

  #shown() {
    clearTimeout(this.#resting);
    if (document.hidden) this.#resting = setTimeout(() => this.stop(), HIDDEN_MAX_MS);
    else if (this.#abort === null) this.start();
  }
}
