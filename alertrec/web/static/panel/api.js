import { TEXT } from "./words.js";

const TIMEOUT_MS = 20_000;

/** Requests as the element's attributes and `headers` have them; errors carry what the customer is told. */
export class Api {
  constructor(element) {
    this.element = element;
  }

  get csrf() {
    return this.element.getAttribute("csrf") ?? document.querySelector('meta[name="csrf-token"]')?.content;
  }

  async fetch(path, { accept = "application/json", body, ...options }) {
    const { headers: own } = this.element;
    const headers = new Headers({ Accept: accept, ...(typeof own === "function" ? await own() : own) });
    if (body) headers.set("Content-Type", "application/json");
    if (body && this.csrf) headers.set("X-CSRF-Token", this.csrf);
    const method = body ? "POST" : "GET";
    const base = (this.element.getAttribute("api") ?? "/api/alerts").replace(/\/+$/, "");
    const request = { method, headers, credentials: "same-origin", body: body && JSON.stringify(body), ...options };
    const response = await fetch(`${base}/recommendations${path}`, request);
    if (!response.ok) throw new Error(await problemOf(response));
    return response;
  }

  async json(path, { signal, ...options } = {}) {
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), TIMEOUT_MS);
    signal?.addEventListener("abort", () => limit.abort());
    try {
      return await (await this.fetch(path, { ...options, signal: limit.signal })).json();
    } catch (error) {
      throw error.name === "Error" ? error : new Error(TEXT.unreachable, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  feedback(item, action, extra) {
    const body = { event_id: crypto.randomUUID(), action, ...extra };
    return this.json(`/${encodeURIComponent(item.recommendation_id)}/feedback`, { body, keepalive: true });
  }
}

async function problemOf(response) {
  if (TEXT.problems[response.status]) return TEXT.problems[response.status];
  const { detail, title } = await response.json().catch(() => ({}));
  // The detail of an answer that is no problem+json may be a list.
  return [detail, title].find((each) => each && typeof each === "string") ?? TEXT.failed;
}
