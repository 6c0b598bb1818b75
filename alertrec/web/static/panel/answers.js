import { button, el, problemBox, showProblem } from "./elements.js";
import { TEXT } from "./words.js";

const FOREVER = "9999-12-31T00:00:00Z";

/** What a customer may answer to a card; where that fails, it can be sent again. */
export class Answers {
  isBusy = false;
  problem = problemBox();
  verb = el("span");
  #eventIds = new Map();

  constructor(card) {
    this.card = card;
    const action = (kind, words) =>
      button({ class: kind, "aria-describedby": card.id, onclick: () => this.answer(kind) }, words);
    this.buttons = {
      added: action("added", this.verb),
      snoozed: action("snoozed", TEXT.snooze),
      dismissed: action("dismissed", TEXT.dismiss),
    };
    this.element = el("div", { class: "actions" }, ...Object.values(this.buttons));
  }

  async answer(kind) {
    if (this.isBusy) return;
    this.#setBusy(kind);
    this.problem.hidden = true;
    try {
      const answer = await (kind === "added" ? this.#create() : this.#decline(kind));
      await this.card.panel.onAnswer(this.card, kind, answer);
    } catch (error) {
      this.#setBusy(null);
      showProblem(this.problem, error, () => (this.buttons[kind].focus(), this.answer(kind)));
    }
  }

  #setBusy(kind) {
    this.isBusy = kind !== null;
    if (this.card.dial) this.card.dial.slider.disabled = this.isBusy;
    for (const [name, each] of Object.entries(this.buttons)) {
      // Not `disabled`: that drops the focus, and throws a screen reader to the top of the page.
      each.setAttribute("aria-disabled", this.isBusy);
      each.classList.toggle("busy", name === kind);
    }
  }

  async #create() {
    const { card } = this;
    if (card.isStale) await card.ask(); // what is created is what the customer reads
    const { category, priority, reasoning, recommendation_id, alert_type } = card.item;
    const { title, description, natural_language_query } = card.words;
    const words = { title, description, natural_language_query, reasoning };
    const rule = { ...words, category, priority, recommendation_id, alert_type, parameters: card.parameters };
    return card.panel.api.json("/create-rule", { body: { ...rule, event_id: this.#eventId(rule) } });
  }

  async #decline(kind) {
    const { item, panel } = this.card;
    if (!item.recommendation_id) return {}; // a starter is only hidden here
    const due = kind === "dismissed" ? { due_at: FOREVER } : {};
    return panel.api.feedback(item, kind, { ...due, event_id: this.#eventId(kind) });
  }

  /** One id for one intention: sent again after an error it is the same, with another number it is not. */
  #eventId(intention) {
    const key = JSON.stringify(intention);
    if (!this.#eventIds.has(key)) this.#eventIds.set(key, crypto.randomUUID());
    return this.#eventIds.get(key);
  }
}
