import { Answers } from "./answers.js";
import { Dial } from "./dial.js";
import { button, el, iconOf } from "./elements.js";
import { isSame, keyOf } from "./items.js";
import { isFirstSight } from "./sights.js";
import { firingsText, timeline } from "./timeline.js";
import { TEXT } from "./words.js";

const DEBOUNCE_MS = 250;

let lastId = 0;

/** One item, as long as it is in the list: what the customer did to it outlives a renewed list. */
export class Card {
  constructor(panel, item) {
    this.panel = panel;
    this.id = `card-${++lastId}`;
    this.build();
    this.update(item);
  }

  get key() {
    return keyOf(this.item);
  }

  get advice() {
    return this.item.change?.advice;
  }

  get isRetired() {
    return this.advice === "retire";
  }

  get isInUse() {
    return this.answers.isBusy || this.dial?.isTurned || this.element.contains(this.panel.shadowRoot.activeElement);
  }

  get title() {
    // A preview names the rule, an advice says first what to do with it: "Fewer alerts: …".
    const verb = this.advice && this.words !== this.item ? /^[^:]+: |/.exec(this.item.title)[0] : "";
    return verb + this.words.title;
  }

  get firings() {
    return firingsText({ test: this.test, change: this.item.change, formats: this.panel.formats });
  }

  build() {
    const { id } = this;
    const details = `${id}-details`;
    const expander = { "aria-expanded": "false", "aria-controls": details, onclick: () => this.toggle() };
    this.heading = el("h3", { id, tabindex: "-1" });
    this.top = el("header");
    this.sentence = el("p");
    this.figure = el("figure");
    this.why = button({ class: "why", ...expander, "aria-describedby": id }, TEXT.why);
    this.details = el("div", { class: "details", id: details, hidden: true });
    this.answers = new Answers(this);
    const { problem, element: actions } = this.answers;
    const parts = [this.top, this.heading, this.sentence, this.figure, this.why, this.details, problem, actions];
    this.element = el("article", { "aria-labelledby": id }, ...parts);
  }

  update(item) {
    if (isSame(item, this.item)) return;
    if (this.isInUse) return void (this.item.recommendation_id = item.recommendation_id); // what is being read stays
    this.item = this.words = item;
    this.asking?.abort();
    this.parameters = item.parameters ?? {};
    this.test = this.isRetired ? item.change.fired : item.would_have_fired;
    this.isAsked = this.isStale = false;
    const badge = el("span", { class: `badge ${item.priority}` }, TEXT.priority[item.priority] ?? item.priority);
    const tile = el("span", { class: "tile", "aria-hidden": "true" }, iconOf(item.category));
    this.top.replaceChildren(tile, el("span", { class: "category" }, item.category.replaceAll("_", " ")), badge);
    this.answers.verb.textContent = TEXT.act[this.advice ?? "offer"] ?? TEXT.act.tighten;
    this.renewDial();
    this.render();
  }

  renewDial() {
    this.dial?.element.remove();
    this.dial = null;
    const { name, steps = [] } = this.panel.types[this.item.alert_type]?.dial ?? {};
    const value = this.parameters[name];
    if (value == null || this.isRetired) return;
    const onTurn = (turned) => this.onTurn({ [name]: turned });
    this.dial = new Dial({ id: `${this.id}-dial`, name, steps, value, formats: this.panel.formats, onTurn });
    this.figure.before(this.dial.element);
  }

  onTurn(turned) {
    this.parameters = { ...this.parameters, ...turned };
    this.isStale = true;
    this.element.classList.add("asking");
    clearTimeout(this.timer);
    const tell = () => this.panel.say(`${this.title}. ${this.firings}`);
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
      if (fired.count || this.test || this.isStale) this.test = { ...fired, dates };
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
    this.renderFigure();
    this.renderDetails();
  }

  renderFigure() {
    const { firings: label, test } = this;
    const { formats, listedAt } = this.panel;
    this.figure.hidden = !test;
    if (!test) return;
    const drawn = test.isUnknown ? [] : timeline({ test, formats, listedAt, label });
    this.figure.replaceChildren(el("figcaption", {}, label), ...drawn);
  }

  renderDetails() {
    const { dial } = this;
    const purchases = (this.test?.examples ?? []).map((each) => this.panel.formats.dated(each));
    const examples = purchases.map((texts) => el("li", {}, ...texts.map((text) => el("bdi", {}, text))));
    const heading = this.isRetired ? TEXT.examplesNow : TEXT.examples;
    this.details.replaceChildren(
      el("p", {}, this.item.reasoning ?? ""),
      ...(dial?.isTurned ? [el("p", { class: "soft" }, TEXT.writtenFor(dial.format(dial.suggested)))] : []),
      el("h4", {}, TEXT.rule),
      el("blockquote", {}, this.words.natural_language_query),
      ...(examples.length ? [el("h4", {}, heading), el("ul", {}, ...examples)] : []),
      el("p", { class: "soft" }, TEXT.confidence[this.item.confidence_level] ?? ""),
    );
  }

  toggle() {
    const isOpen = !this.details.toggleAttribute("hidden");
    this.why.setAttribute("aria-expanded", isOpen);
    if (!this.wasOpen) this.note("expanded");
    this.wasOpen = true;
  }

  onSeen() {
    const { recommendation_id: id } = this.item;
    if (!this.isAsked) this.ask().catch(() => {}); // the examples stay
    if (id && isFirstSight(id)) this.note("shown");
  }

  /** Report what was looked at, which may fail; a starter is nobody's own, so of it there is nothing to report. */
  note(action) {
    if (this.item.recommendation_id) this.panel.api.feedback(this.item, action).catch(() => {});
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
