import { Card } from "./card.js";
import { button, el } from "./elements.js";
import { keysOf } from "./items.js";
import { TEXT } from "./words.js";

export const CARDS_AT_FIRST = 4;

/** The cards in their order, the first few or all; each learns when it is seen. */
export class Cards {
  element = el("div", { class: "cards" });
  more = button({ class: "more", hidden: true, onclick: () => this.#toggleAll() });
  #all = [];
  #isOpen = false;
  #observer = new IntersectionObserver((entries) => this.#onSeen(entries), { threshold: 0.5 });

  constructor(panel) {
    this.panel = panel;
  }

  get size() {
    return this.#all.length;
  }

  get keys() {
    return this.#all.map((card) => card.key);
  }

  watch() {
    for (const { element } of this.#all) this.#observer.observe(element);
  }

  unwatch() {
    this.#observer.disconnect();
  }

  /** Keep the cards that stay, so that what the customer did to them stays, and those that are being worked on. */
  renew(items) {
    const old = new Map(this.#all.map((card) => [card.key, card]));
    this.#all = items.map((item) => {
      const key = keysOf(item).find((each) => old.has(each));
      const card = old.get(key) ?? new Card(this.panel, item);
      old.delete(key);
      card.update(item);
      return card;
    });
    for (const card of old.values()) {
      if (card.isInUse) this.#all.push(card);
      else card.element.remove();
    }
    this.#place();
    this.watch();
    this.#arrange();
  }

  /** Take a card away, and return the one beside it. */
  async remove(card) {
    const visible = this.#all.filter(({ element }) => !element.hidden);
    const index = visible.indexOf(card);
    await card.leave();
    this.#all = this.#all.filter((each) => each !== card);
    this.#arrange();
    return visible[index + 1] ?? visible[index - 1];
  }

  #place() {
    if (this.#all.every(({ element }, i) => element === this.element.children[i])) return;
    const focused = this.#all.findIndex(({ element }) => element.contains(this.panel.shadowRoot.activeElement));
    this.#all.forEach(({ element }, i) => {
      // A node that is moved loses the focus, so the others are moved around the one that has it.
      const next = this.#all[i < focused ? focused : -1]?.element ?? null;
      if (i !== focused) this.element.insertBefore(element, next);
    });
  }

  #arrange() {
    this.#all.forEach((card, i) => (card.element.hidden = i >= CARDS_AT_FIRST && !this.#isOpen && !card.isInUse));
    const n = this.#all.filter((card) => card.element.hidden).length;
    this.more.hidden = this.size <= CARDS_AT_FIRST;
    this.more.textContent = n ? TEXT.more(n) : TEXT.fewer;
    this.more.setAttribute("aria-expanded", this.#isOpen);
  }

  #toggleAll() {
    this.#isOpen = !this.#isOpen;
    const revealed = this.#all.find((card) => card.element.hidden);
    this.#arrange();
    if (this.#isOpen) revealed?.heading.focus();
  }

  #onSeen(entries) {
    for (const { isIntersecting, target } of entries) {
      const card = isIntersecting && this.#all.find(({ element }) => element === target);
      if (!card) continue;
      this.#observer.unobserve(target);
      card.onSeen();
    }
  }
}
