/**
 * <alert-recommendations api="/api/alerts"></alert-recommendations>: a customer's recommended rules.
 *
 * Attributes: `api`, the base of the API; `csrf`, a token, else that of `<meta name="csrf-token">`.
 * Property `headers`: an object, or a function that returns one or a promise of one, such as a bearer token.
 * Events, with the item in `detail`: `alertrec:added`, `alertrec:dismissed`, `alertrec:snoozed`.
 * Colours and sizes: see panel.css. Words: `Object.assign(TEXT, {...})` before the element is connected.
 */
export const TEXT = {
  heading: "Recommended Rules",
  connection: { live: "Live", offline: "Offline", connecting: "Connecting" },
  loading: "Loading your recommendations",
  loaded: (n) => (n === 1 ? "1 recommended rule" : `${n} recommended rules`),
  starters: "Popular starters while we look at your spending",
  ready: "Your recommendations are ready",
  updated: "Your recommendations were updated",
  nothing: "Nothing to recommend right now",
  whyNothing: "We suggest a rule only if it fits how you use your card. When one does, it appears here by itself.",
  more: (n) => `View ${n} more`,
  fewer: "Show fewer",
  why: "Why this?",
  retry: "Retry",
  act: { offer: "Add rule", tighten: "Apply change", loosen: "Apply change", retire: "Switch off" },
  snooze: "Not now",
  dismiss: "Never",
  threshold: "Threshold",
  lower: "Lower the threshold",
  higher: "Raise the threshold",
  reset: (value) => `Back to ${value}`,
  anyAmount: "any amount",
  added: (title) => `Added: ${title}`,
  changed: (title) => `Done: ${title}`,
  snoozed: (title) => `We will ask again in a week: ${title}`,
  dismissed: (title) => `We won't suggest this again: ${title}`,
  hidden: (title) => `Hidden: ${title}`,
  priority: { high: "High priority", medium: "Medium priority", low: "Low priority" },
  confidence: { high: "Confidence: high", medium: "Confidence: medium", low: "Confidence: low" },
  times: (n, number) => (n === 1 ? "once" : `${number} times`),
  fired: (times, days) => `Would ${times ? `have fired ${times}` : "not have fired"} in ${days} days`,
  now: (times, days) => (times ? `Fires ${times} in ${days} days now` : `Has not fired in ${days} days`),
  then: (times) => `with this change ${times || "never"}`,
  untested: "We could not check how often this would have fired",
  latest: "Latest",
  rule: "The rule",
  examples: "It would have told you of",
  examplesNow: "It told you of",
  writtenFor: (value) => `Written for the suggested threshold, ${value}.`,
  nameless: "Unnamed merchant",
  unreachable: "We could not reach the service. Check your connection and try again.",
  failed: "Something went wrong on our side. Please try again.",
};

const CARDS_AT_FIRST = 4;
const DEBOUNCE_MS = 250;
const TOAST_MS = 8_000;
const TIMEOUT_MS = 20_000;
const SILENCE_MS = 90_000; // several keep-alives missed: a laptop that slept holds a dead connection
const POLLS_MS = [3_000, 6_000, 12_000, 24_000];
const DAY_MS = 86_400_000;
const FOREVER = "9999-12-31T00:00:00Z";
const SEEN = "alertrec:shown";
const BELL = "M6 16v-5a6 6 0 1 1 12 0v5l1.5 2h-15zM10 21h4";
const ICONS = {
  fraud_protection: "M12 3l7 3v5c0 4.6-2.9 8.3-7 10-4.1-1.7-7-5.4-7-10V6zM9 11.8l2.2 2.2 4-4",
  spending_threshold: "M4 18a9 9 0 1 1 16 0M12 15l3.5-4.5M12 15h.1",
  location_based: "M12 21c4-4.4 6-7.8 6-10.6a6 6 0 1 0-12 0c0 2.8 2 6.2 6 10.6zM12 12.6a2 2 0 1 0 0-4 2 2 0 0 0 0 4z",
  subscription_monitoring: "M5 11a7 7 0 0 1 12.4-3.6L19 9m0-4v4h-4m4 4a7 7 0 0 1-12.4 3.6L5 15m0 4v-4h4",
  merchant_monitoring: "M5 12v7h14v-7M5.5 5h13L20 9.5a2.6 2.6 0 0 1-5.3 0 2.7 2.7 0 0 1-5.4 0 2.6 2.6 0 0 1-5.3 0zM10 19v-4h4v4",
};

let lastId = 0;
const keyOf = (item) => item.recommendation_id ?? starterKeyOf(item);
const starterKeyOf = (item) => `starter:${item.alert_type}`;
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** Give an element its attributes, listeners (`onclick`) and children; a text among these is never read as HTML. */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const button = (attributes, ...children) => el("button", { type: "button", ...attributes }, ...children);

class Formats {
  constructor({ currency, locale } = {}) {
    this.currency = currency;
    this.locale = Intl.NumberFormat.supportedLocalesOf([locale].filter(Boolean))[0];
  }

  number(value, options) {
    return new Intl.NumberFormat(this.locale, options).format(value);
  }

  money(value) {
    const style = this.currency ? { style: "currency", currency: this.currency } : {};
    return this.number(value, Number.isInteger(value) ? { ...style, maximumFractionDigits: 0 } : style);
  }

  dial(name, value) {
    if (name === "percent") return this.number(value / 100, { style: "percent", maximumFractionDigits: 1 });
    if (name === "count") return this.number(value);
    return value === 0 ? TEXT.anyAmount : this.money(value);
  }

  times(count) {
    return count && TEXT.times(count, this.number(count));
  }

  /** A day of the bank, "2026-10-03" or in milliseconds: it lies in no time zone. */
  day(value) {
    const date = new Date(value);
    const year = date.getUTCFullYear() === new Date().getFullYear() ? undefined : "numeric";
    return new Intl.DateTimeFormat(this.locale, { month: "short", day: "numeric", year, timeZone: "UTC" }).format(date);
  }

  what({ merchant, amount }) {
    return [merchant || TEXT.nameless, ...(amount == null ? [] : [this.money(amount)])];
  }
}

class Api {
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
  const { detail, title } = await response.json().catch(() => ({}));
  // The detail of an answer that is no problem+json may be a list.
  return [detail, title].find((each) => each && typeof each === "string") ?? TEXT.failed;
}

/** Yield the events of a text/event-stream; `onAlive` is called at each sign of life, comments included. */
export async function* serverSentEvents(body, onAlive = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { name: "message", data: [] };
  for (let chunk; !(chunk = await reader.read()).done; ) {
    onAlive();
    const lines = (rest + chunk.value).split(/\r\n|\n|\r(?=[^\n])/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "event") event.name = value;
      if (field === "data") event.data.push(value);
      if (line !== "") continue;
      if (event.data.length) yield { name: event.name, data: event.data.join("\n") };
      event = { name: "message", data: [] };
    }
  }
}

const shown = new Set();

/** Whether an id is seen for the first time in this tab, reloads included. */
function isFirstSight(id) {
  try {
    JSON.parse(sessionStorage.getItem(SEEN) ?? "[]").forEach((each) => shown.add(each));
    if (shown.has(id)) return false;
    sessionStorage.setItem(SEEN, JSON.stringify([...shown.add(id)]));
    return true;
  } catch {
    return !shown.has(id) && Boolean(shown.add(id)); // storage is refused: what this page remembers must do
  }
}

/** One item, as long as it is in the list: what the customer did to it outlives a renewed list. */
class Card {
  eventIds = new Map();

  constructor(panel, item) {
    this.panel = panel;
    this.id = `card-${++lastId}`;
    this.build();
    this.update(item);
  }

  get advice() {
    return this.item.change?.advice;
  }

  get isRetired() {
    return this.advice === "retire";
  }

  get isInUse() {
    return this.isBusy || this.isTurned || this.element.contains(this.panel.shadowRoot.activeElement);
  }

  get title() {
    // A preview names the rule, an advice says first what to do with it: "Fewer alerts: …".
    const verb = this.advice && this.words !== this.item ? /^[^:]+: |/.exec(this.item.title)[0] : "";
    return verb + this.words.title;
  }

  build() {
    const { id } = this;
    const about = { "aria-describedby": id };
    const details = `${id}-details`;
    const expander = { class: "why", "aria-expanded": "false", "aria-controls": details, onclick: () => this.toggle() };
    this.heading = el("h3", { id, tabindex: "-1" });
    this.top = el("header");
    this.sentence = el("p");
    this.dial = el("div", { class: "dial", hidden: true });
    this.figure = el("figure");
    this.why = button({ ...expander, ...about }, TEXT.why);
    this.details = el("div", { class: "details", id: details, hidden: true });
    this.problem = el("div", { class: "problem", role: "alert", hidden: true });
    this.verb = el("span");
    const action = (kind, words) => button({ class: kind, ...about, onclick: () => this.answer(kind) }, words);
    this.buttons = [action("added", this.verb), action("snoozed", TEXT.snooze), action("dismissed", TEXT.dismiss)];
    const actions = el("div", { class: "actions" }, ...this.buttons);
    const parts = [this.top, this.heading, this.sentence, this.dial, this.figure, this.why, this.details, this.problem];
    this.element = el("article", { "aria-labelledby": id }, ...parts, actions);
  }

  update(item) {
    if (isSame(item, this.item)) return;
    const { recommendation_id } = item;
    if (this.isInUse) return void (this.item = { ...this.item, recommendation_id }); // what is being read stays
    this.item = this.words = item;
    this.asking?.abort();
    this.parameters = item.parameters ?? {};
    this.test = this.isRetired && item.change.fired?.window_days ? item.change.fired : item.would_have_fired;
    this.isAsked = this.isStale = false;
    const icon = svg("svg", { viewBox: "0 0 24 24" }, svg("path", { d: ICONS[item.category] ?? BELL }));
    const badge = el("span", { class: `badge ${item.priority}` }, TEXT.priority[item.priority] ?? item.priority);
    const tile = el("span", { class: "tile", "aria-hidden": "true" }, icon);
    this.top.replaceChildren(tile, el("span", { class: "category" }, item.category.replaceAll("_", " ")), badge);
    this.verb.textContent = TEXT.act[this.advice ?? "offer"] ?? TEXT.act.tighten;
    this.buildDial();
    this.render();
  }

  buildDial() {
    const { name, steps = [] } = this.panel.types[this.item.alert_type]?.dial ?? {};
    const value = this.parameters[name];
    this.dial.hidden = value == null || this.isRetired;
    if (this.dial.hidden) return;
    const id = `${this.id}-dial`;
    this.values = [...new Set([...steps, value])].sort((one, other) => one - other);
    this.suggested = { name, value, words: this.panel.formats.dial(name, value) };
    this.number = el("span", { class: "number" }); // not <output>: a slider tells its value itself
    const range = { type: "range", id, min: 0, max: this.values.length - 1, step: 1 };
    this.slider = el("input", { ...range, oninput: () => this.turnTo(this.slider.value) });
    const back = () => (this.turnTo(this.values.indexOf(value)), this.slider.focus());
    this.reset = button({ class: "reset", onclick: back }, TEXT.reset(this.suggested.words));
    // Not in the tab order: they are for fingers and mice, the slider's keys do the same.
    const step = (by) => ({ tabindex: "-1", onclick: () => this.isBusy || this.turnTo(+this.slider.value + by) });
    this.lower = button({ ...step(-1), "aria-label": TEXT.lower }, "−");
    this.higher = button({ ...step(1), "aria-label": TEXT.higher }, "+");
    const top = el("div", {}, el("label", { for: id }, TEXT.threshold), this.reset, this.number);
    this.dial.replaceChildren(top, this.lower, this.slider, this.higher);
    this.turnTo(this.values.indexOf(value));
  }

  turnTo(index) {
    const { name, value: suggested } = this.suggested;
    this.slider.value = index;
    const value = this.values[this.slider.value];
    this.number.textContent = this.panel.formats.dial(name, value);
    this.slider.setAttribute("aria-valuetext", this.number.textContent);
    this.lower.disabled = +this.slider.value === 0;
    this.higher.disabled = +this.slider.value === this.values.length - 1;
    this.reset.hidden = value === suggested;
    this.isTurned = value !== suggested;
    if (this.parameters[name] === value) return;
    this.parameters = { ...this.parameters, [name]: value };
    this.isStale = true;
    this.element.classList.add("asking");
    clearTimeout(this.timer);
    const tell = () => this.panel.say(`${this.title}. ${this.figureText}`);
    this.timer = setTimeout(() => this.ask().then(tell, () => {}), DEBOUNCE_MS);
  }

  /** Ask what the rule would be called, and when it would have fired, with the number that is set. */
  async ask() {
    clearTimeout(this.timer);
    this.isAsked = true;
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    const body = { alert_type: this.item.alert_type, parameters: this.parameters };
    try {
      const { would_have_fired: fired, dates, ...words } = await this.panel.api.json("/preview", { body, signal });
      if (signal.aborted) return;
      if (!this.isRetired) this.words = words;
      // To whom no purchases are known, a starter that "would not have fired" says nothing.
      if (fired && (fired.count || this.test || this.isStale)) this.test = { ...fired, dates };
      this.isStale = false;
    } catch (error) {
      if (!signal.aborted && this.isStale) this.test = { isUnknown: true };
      throw error;
    } finally {
      if (!signal.aborted) {
        this.element.classList.remove("asking");
        this.render();
      }
    }
  }

  render() {
    this.heading.textContent = this.title;
    this.sentence.textContent = this.words.description;
    this.figure.hidden = !this.test;
    if (this.test) this.figure.replaceChildren(el("figcaption", {}, this.figureText), ...this.timeline());
    this.renderDetails();
  }

  get figureText() {
    if (!this.test || this.test.isUnknown) return TEXT.untested;
    const { formats } = this.panel;
    const { count, window_days: days } = this.test;
    const { fired } = this.item.change ?? {};
    if (!this.advice) return TEXT.fired(formats.times(count), days);
    const now = TEXT.now(formats.times(fired?.count ?? fired), days);
    return this.isRetired ? now : `${now}, ${TEXT.then(formats.times(count))}`;
  }

  timeline() {
    if (this.test.isUnknown) return [];
    const { formats, listedAt } = this.panel;
    const { window_days: days, until, examples, dates = examples.map((each) => each.date) } = this.test;
    const today = Math.floor(Date.parse(until ?? listedAt) / DAY_MS) * DAY_MS;
    const end = Math.max(today, ...dates.map((day) => Date.parse(day)));
    const start = end - (days - 1) * DAY_MS;
    const x = (time) => `${2 + (96 * (Math.max(time, start) - start)) / (end - start)}%`;
    const tick = (day) => {
      const n = dates.filter((each) => each === day).length;
      const what = examples.filter((each) => each.date === day).map((each) => formats.what(each).join(" "));
      const hint = svg("title", {}, [formats.day(day), ...what].join(", "));
      const at = x(Date.parse(day));
      return svg("line", { class: n > 1 ? "tick many" : "tick", x1: at, x2: at, y1: 5, y2: 19 }, hint);
    };
    const latest = examples.map((each) => [formats.day(each.date), ...formats.what(each)].join(", ")).join("; ");
    const label = latest ? `${this.figureText}. ${TEXT.latest}: ${latest}` : this.figureText;
    const line = svg("line", { x1: "1.5%", x2: "98.5%", y1: 12, y2: 12 });
    const ends = [start, end].map((day) => el("span", { "aria-hidden": "true" }, formats.day(day)));
    return [svg("svg", { role: "img", "aria-label": label }, line, ...[...new Set(dates)].map(tick)), ...ends];
  }

  renderDetails() {
    const { formats } = this.panel;
    const told = (this.test?.examples ?? []).map((each) => [formats.day(each.date), ...formats.what(each)]);
    const examples = told.map((texts) => el("li", {}, ...texts.map((text) => el("bdi", {}, text))));
    this.details.replaceChildren(
      el("p", {}, this.item.reasoning ?? ""),
      ...(this.isTurned ? [el("p", { class: "soft" }, TEXT.writtenFor(this.suggested.words))] : []),
      el("h4", {}, TEXT.rule),
      el("blockquote", {}, this.words.natural_language_query),
      ...(examples.length ? [el("h4", {}, this.isRetired ? TEXT.examplesNow : TEXT.examples)] : []),
      ...(examples.length ? [el("ul", {}, ...examples)] : []),
      el("p", { class: "soft" }, TEXT.confidence[this.item.confidence_level] ?? ""),
    );
  }

  toggle() {
    const isOpen = this.details.toggleAttribute("hidden") === false;
    this.why.setAttribute("aria-expanded", isOpen);
    if (!this.wasOpen && this.item.recommendation_id) this.panel.api.feedback(this.item, "expanded").catch(() => {});
    this.wasOpen = true;
  }

  onSeen() {
    const { recommendation_id: id } = this.item;
    if (!this.isAsked) this.ask().catch(() => {}); // the examples stay
    if (id && isFirstSight(id)) this.panel.api.feedback(this.item, "shown").catch(() => {});
  }

  async answer(kind) {
    if (this.isBusy) return;
    this.setBusy(kind);
    this.problem.hidden = true;
    try {
      const answer = await (kind === "added" ? this.create() : this.decline(kind));
      await this.panel.onAnswer(this, kind, answer);
    } catch (error) {
      this.setBusy(null);
      const again = () => (this.buttons.find((each) => each.classList.contains(kind)).focus(), this.answer(kind));
      this.problem.replaceChildren(el("p", {}, error.message), button({ onclick: again }, TEXT.retry));
      this.problem.hidden = false;
    }
  }

  setBusy(kind) {
    this.isBusy = kind !== null;
    if (this.slider) this.slider.disabled = this.isBusy;
    for (const each of this.buttons) {
      // Not `disabled`: that drops the focus, and throws a screen reader to the top of the page.
      each.setAttribute("aria-disabled", this.isBusy);
      each.classList.toggle("busy", each.classList.contains(kind));
    }
  }

  async create() {
    if (this.isStale) await this.ask(); // what is created is what the customer reads
    const { category, priority, reasoning, recommendation_id, alert_type } = this.item;
    const { title, description, natural_language_query } = this.words;
    const words = { title, description, natural_language_query, reasoning };
    const rule = { ...words, category, priority, recommendation_id, alert_type, parameters: this.parameters };
    return this.panel.api.json("/create-rule", { body: { ...rule, event_id: this.eventId(rule) } });
  }

  async decline(kind) {
    if (!this.item.recommendation_id) return {}; // a starter is only hidden here
    const due = kind === "dismissed" ? { due_at: FOREVER } : {};
    return this.panel.api.feedback(this.item, kind, { ...due, event_id: this.eventId(kind) });
  }

  /** One id for one intention: sent again after an error it is the same, with another number it is not. */
  eventId(intention) {
    const key = JSON.stringify(intention);
    if (!this.eventIds.has(key)) this.eventIds.set(key, crypto.randomUUID());
    return this.eventIds.get(key);
  }

  async leave() {
    clearTimeout(this.timer);
    this.asking?.abort();
    const frames = { opacity: [1, 0], transform: ["none", "scale(0.97)"] };
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!isCalm) await this.element.animate(frames, { duration: 180, easing: "ease-in" }).finished.catch(() => {});
    this.element.remove();
  }
}

class AlertRecommendations extends HTMLElement {
  static observedAttributes = ["api"];

  #answered = new Set();
  #cards = new Map();
  #fading;
  #isAll = false;
  #isStarters;
  #life;
  #loading;
  #nPolls = 0;
  #observer;
  #polling;

  constructor() {
    super();
    this.api = new Api(this);
    this.#build();
  }

  connectedCallback() {
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.#onVisibility();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#stop();
  }

  attributeChangedCallback() {
    if (this.#life) (this.#stop(), this.#start());
  }

  // A tab in the background holds no connection: browsers allow few to one host.
  #onVisibility = () => (document.hidden ? this.#stop() : this.#life || this.#start());

  #start() {
    this.#life = new AbortController();
    this.#observer = new IntersectionObserver((entries) => this.#onSeen(entries), { threshold: 0.5 });
    for (const card of this.#cards.values()) this.#observer.observe(card.element);
    this.#nPolls = 0;
    this.#load();
    this.#listen(this.#life.signal);
  }

  #stop() {
    this.#life?.abort();
    this.#life = null;
    this.#loading?.abort();
    this.#observer?.disconnect();
    clearTimeout(this.#polling);
  }

  #build() {
    const root = this.attachShadow({ mode: "open" });
    this.heading = el("h2", { id: "heading", tabindex: "-1" }, TEXT.heading);
    this.connection = el("span", { class: "connection" });
    this.spinner = el("span", { class: "spinner", "aria-hidden": "true" });
    this.saying = el("span");
    this.status = el("p", { class: "status", role: "status" }, this.saying);
    this.notice = el("p", { class: "notice", hidden: true });
    this.problem = el("div", { class: "problem", role: "alert", hidden: true });
    this.list = el("div", { class: "cards" });
    const bones = () => el("div", { class: "bones" }, el("i"), el("i"), el("i"), el("i"));
    const skeletons = Array.from({ length: CARDS_AT_FIRST }, bones);
    this.skeleton = el("div", { class: "cards", "aria-hidden": "true" }, ...skeletons);
    this.empty = el("div", { class: "empty", hidden: true }, el("h3", {}, TEXT.nothing), el("p", {}, TEXT.whyNothing));
    this.more = button({ class: "more", hidden: true, onclick: () => this.#toggleAll() });
    const header = el("header", {}, this.heading, this.spinner, this.connection);
    const parts = [header, this.notice, this.problem, this.list, this.skeleton, this.empty, this.more, this.status];
    const section = el("section", { "aria-labelledby": "heading", hidden: true }, ...parts);
    const reveal = () => (section.hidden = false); // not before it is styled, but also if it never is
    const href = new URL("panel.css", import.meta.url);
    root.append(el("link", { rel: "stylesheet", href, onload: reveal, onerror: reveal }), section);
    this.#setConnection("connecting");
  }

  say(text, isForAll = false) {
    this.saying.textContent = text;
    this.status.classList.toggle("visible", isForAll);
    clearTimeout(this.#fading);
    if (isForAll) this.#fading = setTimeout(() => this.status.classList.remove("visible"), TOAST_MS);
  }

  get #isTelling() {
    return this.status.classList.contains("visible");
  }

  #setConnection(state) {
    this.connection.className = `connection ${state}`;
    this.connection.textContent = TEXT.connection[state];
  }

  async #load() {
    this.#loading?.abort();
    const { signal } = (this.#loading = new AbortController());
    clearTimeout(this.#polling);
    this.#setBusy(true);
    try {
      const kinds = this.types ? null : this.api.json("/alert-types", { signal });
      const [list, known] = await Promise.all([this.api.json("", { signal }), kinds]);
      if (signal.aborted) return;
      if (known) [this.types, this.formats] = [known.alert_types, new Formats(known)];
      this.#show(list);
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
  }

  #setBusy(isBusy, isWaiting = isBusy) {
    this.list.setAttribute("aria-busy", isBusy);
    this.spinner.hidden = !isWaiting;
    this.skeleton.hidden = !isWaiting || this.#cards.size > 0 || !this.problem.hidden;
    if (isBusy && !this.#cards.size) (this.say(TEXT.loading), (this.empty.hidden = true));
  }

  #show(list) {
    const items = list.recommendations.filter((item) => !this.#answered.has(keyOf(item)));
    const listed = new Set(list.recommendations.map(keyOf));
    for (const key of this.#answered) if (!listed.has(key)) this.#answered.delete(key); // asked again, it may return
    this.listedAt = list.generated_at;
    const before = [...this.#cards.keys()];
    const isWaiting = Boolean(list.is_placeholder);
    const isNews = isWaiting !== this.#isStarters;
    const greeting = this.#greeting(isWaiting, items.length);
    this.#isStarters = isWaiting;
    this.#reconcile(items);
    this.#arrange();
    this.problem.hidden = true;
    this.#setBusy(false, isWaiting);
    this.notice.textContent = [isWaiting && TEXT.starters, list.message].filter(Boolean).join(". ");
    this.notice.hidden = !this.notice.textContent;
    if (isNews) this.say(greeting);
    // What the customer has just done tends to bring a new list, which must not talk over what it led to.
    else if (!isSame(before, [...this.#cards.keys()]) && !this.#isTelling) this.say(TEXT.updated);
    if (isWaiting) this.#poll();
    else this.#nPolls = 0;
  }

  #greeting(isWaiting, n) {
    if (isWaiting) return TEXT.starters;
    if (this.#isStarters) return TEXT.ready;
    return n ? TEXT.loaded(n) : TEXT.nothing;
  }

  /** Keep the cards that stay, so that what the customer did to them stays, and those that are being worked on. */
  #reconcile(items) {
    const old = this.#cards;
    this.#cards = new Map();
    for (const item of items) {
      const key = [keyOf(item), !item.change && starterKeyOf(item)].find((each) => old.has(each));
      const card = old.get(key) ?? new Card(this, item);
      old.delete(key);
      card.update(item);
      this.#cards.set(keyOf(item), card);
    }
    for (const [key, card] of old) card.isInUse ? this.#cards.set(key, card) : card.element.remove();
    this.#place([...this.#cards.values()]);
  }

  #place(cards) {
    for (const { element } of cards) this.#observer?.observe(element);
    if (cards.every(({ element }, i) => element === this.list.children[i])) return;
    const focused = cards.findIndex((card) => card.element.contains(this.shadowRoot.activeElement));
    cards.forEach(({ element }, index) => {
      // A node that is moved loses the focus, so the others are moved around the one that has it.
      if (index !== focused) this.list.insertBefore(element, cards[index < focused ? focused : -1]?.element ?? null);
    });
  }

  #arrange() {
    const cards = [...this.#cards.values()];
    cards.forEach((card, i) => (card.element.hidden = i >= CARDS_AT_FIRST && !this.#isAll && !card.isInUse));
    const n = cards.filter((card) => card.element.hidden).length;
    this.more.hidden = cards.length <= CARDS_AT_FIRST;
    this.more.textContent = n ? TEXT.more(n) : TEXT.fewer;
    this.more.setAttribute("aria-expanded", this.#isAll);
    this.empty.hidden = cards.length > 0 || this.#isStarters;
  }

  #toggleAll() {
    this.#isAll = !this.#isAll;
    const revealed = [...this.#cards.values()].find((card) => card.element.hidden);
    this.#arrange();
    if (this.#isAll) revealed?.heading.focus();
  }

  #onSeen(entries) {
    for (const { isIntersecting, target } of entries) {
      const card = isIntersecting && [...this.#cards.values()].find(({ element }) => element === target);
      if (!card) continue;
      this.#observer.unobserve(target);
      card.onSeen();
    }
  }

  async onAnswer(card, kind, answer) {
    const item = { ...card.item, title: card.title, parameters: card.parameters, ...answer };
    const isLocal = kind !== "added" && !item.recommendation_id;
    this.say(TEXT[isLocal ? "hidden" : kind === "added" && item.change ? "changed" : kind](card.title), true);
    this.#answered.add(keyOf(card.item));
    this.dispatchEvent(new CustomEvent(`alertrec:${kind}`, { detail: item, bubbles: true, composed: true }));
    const visible = [...this.#cards.values()].filter(({ element }) => !element.hidden);
    const index = visible.indexOf(card);
    await card.leave();
    for (const [key, each] of this.#cards) if (each === card) this.#cards.delete(key);
    this.#arrange();
    // The focus went with the card, unless the customer has moved on.
    const next = visible[index + 1] ?? visible[index - 1] ?? this;
    if (document.activeElement === document.body) next.heading.focus();
  }

  #fail(error) {
    this.#setBusy(false, this.#isStarters);
    if (this.#isStarters) this.#poll();
    if (this.listedAt) return; // an older list is better than none, and the next event brings a newer one
    const again = () => (this.heading.focus(), (this.problem.hidden = true), this.#load());
    this.say("");
    this.problem.replaceChildren(el("p", {}, error.message), button({ onclick: again }, TEXT.retry));
    this.problem.hidden = false;
  }

  /** Look again in a while: the stream may be down. */
  #poll() {
    clearTimeout(this.#polling);
    const delay = POLLS_MS[this.#nPolls++];
    if (delay) this.#polling = setTimeout(() => this.#load(), delay);
  }

  async #listen(life) {
    for (let attempt = 0, isFirst = true; !life.aborted; attempt++, isFirst = false) {
      await this.#stream(life, isFirst, () => (attempt = 0));
      if (life.aborted) return;
      this.#setConnection("offline");
      const wait = Math.min(15_000, 1000 * 2 ** attempt) * (1 + Math.random()); // not all customers at once
      await new Promise((resolve) => (setTimeout(resolve, wait), life.addEventListener("abort", resolve)));
    }
  }

  async #stream(life, isFirst, onAlive) {
    const connection = new AbortController();
    const cut = () => connection.abort();
    let silence = setTimeout(cut, SILENCE_MS);
    const heard = () => (clearTimeout(silence), (silence = setTimeout(cut, SILENCE_MS)), onAlive());
    life.addEventListener("abort", cut);
    try {
      const { body } = await this.api.fetch("/stream", { accept: "text/event-stream", signal: connection.signal });
      this.#setConnection("live");
      if (!isFirst) this.#load();
      for await (const { name } of serverSentEvents(body, heard)) if (name === "recommendations_ready") this.#load();
    } catch {
      // It is connected again in a while; what went wrong does not concern the customer.
    } finally {
      clearTimeout(silence);
    }
  }
}

if (!customElements.get("alert-recommendations")) customElements.define("alert-recommendations", AlertRecommendations);
