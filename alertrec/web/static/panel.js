/**
 * <alert-recommendations api="/api/alerts"></alert-recommendations>: a customer's recommended rules.
 *
 * Attributes: `api`, the base of the API; `csrf`, a token, else that of `<meta name="csrf-token">`.
 * Property `headers`: an object, or a function that returns one or a promise of one, such as a bearer token.
 * Events, with the item in `detail`: `alertrec:added`, `alertrec:dismissed`, `alertrec:snoozed`.
 * Colours and sizes: see panel.css. Words: `Object.assign(TEXT, {...})` before the element is made; where it stands in
 * the page's markup, that takes a module before this one, which imports TEXT from panel/words.js.
 */
import { Api } from "./panel/api.js";
import { Cards, CARDS_AT_FIRST } from "./panel/cards.js";
import { el, problemBox, showProblem } from "./panel/elements.js";
import { Formats } from "./panel/formats.js";
import { isSame, keyOf } from "./panel/items.js";
import { listen } from "./panel/stream.js";
import { TEXT } from "./panel/words.js";

export { serverSentEvents } from "./panel/stream.js";
export { TEXT };

const TOAST_MS = 8_000;
const POLLS_MS = [3_000, 6_000, 12_000, 24_000];

class AlertRecommendations extends HTMLElement {
  static observedAttributes = ["api"];

  #answered = new Set();
  #fading;
  #isStarters;
  #life;
  #loading;
  #nPolls = 0;
  #polling;

  constructor() {
    super();
    this.api = new Api(this);
    this.cards = new Cards(this);
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
    this.cards.watch();
    this.#nPolls = 0;
    this.#load();
    const onState = (state) => this.#setConnection(state);
    listen(this.api, this.#life.signal, { onState, onNews: () => this.#load() });
  }

  #stop() {
    this.#life?.abort();
    this.#life = null;
    this.#loading?.abort();
    this.cards.unwatch();
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
    this.problem = problemBox();
    const bones = () => el("div", { class: "bones" }, el("i"), el("i"), el("i"), el("i"));
    const skeletons = Array.from({ length: CARDS_AT_FIRST }, bones);
    this.skeleton = el("div", { class: "cards", "aria-hidden": "true" }, ...skeletons);
    this.empty = el("div", { class: "empty", hidden: true }, el("h3", {}, TEXT.nothing), el("p", {}, TEXT.whyNothing));
    const header = el("header", {}, this.heading, this.spinner, this.connection);
    const { element: list, more } = this.cards;
    const parts = [header, this.notice, this.problem, list, this.skeleton, this.empty, more, this.status];
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
    this.cards.element.setAttribute("aria-busy", isBusy);
    this.spinner.hidden = !isWaiting;
    const isFirst = !this.listedAt; // an empty list that is looked at again is one until the answer
    this.skeleton.hidden = !isWaiting || this.cards.size > 0 || !(isFirst || this.#isStarters) || !this.problem.hidden;
    if (isBusy && isFirst) (this.say(TEXT.loading), (this.empty.hidden = true));
  }

  #show(list) {
    const items = list.recommendations.filter((item) => !this.#answered.has(keyOf(item)));
    const listed = new Set(list.recommendations.map(keyOf));
    for (const key of this.#answered) if (!listed.has(key)) this.#answered.delete(key); // asked again, it may return
    this.listedAt = list.generated_at;
    const before = this.cards.keys;
    const isWaiting = Boolean(list.is_placeholder);
    const isNews = isWaiting !== this.#isStarters;
    const greeting = this.#greeting(isWaiting, items.length);
    this.#isStarters = isWaiting;
    this.cards.renew(items);
    this.#tellIfEmpty();
    this.problem.hidden = true;
    this.#setBusy(false, isWaiting);
    this.notice.textContent = [isWaiting && TEXT.starters, list.message].filter(Boolean).join(". ");
    this.notice.hidden = !this.notice.textContent;
    if (isNews) this.say(greeting);
    // What the customer has just done tends to bring a new list, which must not talk over what it led to.
    else if (!isSame(before, this.cards.keys) && !this.status.classList.contains("visible")) this.say(TEXT.updated);
    if (isWaiting) this.#poll();
    else this.#nPolls = 0;
  }

  #greeting(isWaiting, n) {
    if (isWaiting) return TEXT.starters;
    if (this.#isStarters) return TEXT.ready;
    return n ? TEXT.loaded(n) : TEXT.nothing;
  }

  #tellIfEmpty() {
    this.empty.hidden = this.cards.size > 0 || this.#isStarters;
  }

  async onAnswer(card, kind, answer) {
    const item = { ...card.item, title: card.title, parameters: card.parameters, ...answer };
    let outcome = kind;
    if (kind === "added" && item.change) outcome = "changed";
    if (kind !== "added" && !item.recommendation_id) outcome = "hidden";
    this.say(TEXT[outcome](card.title), true);
    this.#answered.add(card.key);
    this.dispatchEvent(new CustomEvent(`alertrec:${kind}`, { detail: item, bubbles: true, composed: true }));
    const neighbour = await this.cards.remove(card);
    this.#tellIfEmpty();
    // The focus went with the card, unless the customer has moved on.
    if (document.activeElement === document.body) (neighbour ?? this).heading.focus();
  }

  #fail(error) {
    this.#setBusy(false, this.#isStarters);
    if (this.#isStarters) this.#poll();
    if (this.listedAt) return; // an older list is better than none, and the next event brings a newer one
    const again = () => (this.heading.focus(), (this.problem.hidden = true), this.#load());
    this.say("");
    showProblem(this.problem, error, again);
  }

  /** Look again in a while: the stream may be down. */
  #poll() {
    clearTimeout(this.#polling);
    const delay = POLLS_MS[this.#nPolls++];
    if (delay) this.#polling = setTimeout(() => this.#load(), delay);
  }
}

if (!customElements.get("alert-recommendations")) customElements.define("alert-recommendations", AlertRecommendations);
