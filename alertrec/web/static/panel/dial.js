import { button, el } from "./elements.js";
import { TEXT } from "./words.js";

/** The threshold of a rule, which the customer turns through `steps`; `onTurn` is called with each new value. */
export class Dial {
  constructor({ id, name, steps, value, formats, onTurn }) {
    this.value = this.suggested = value;
    this.values = [...new Set([...steps, value])].sort((one, other) => one - other);
    this.format = (number) => formats.dial(name, number);
    this.onTurn = onTurn;
    this.number = el("span", { class: "number" }); // not <output>: a slider tells its value itself
    const range = { type: "range", id, min: 0, max: this.values.length - 1, step: 1 };
    this.slider = el("input", { ...range, oninput: () => this.turnTo(this.slider.value) });
    const back = () => this.slider.disabled || (this.turnBack(), this.slider.focus());
    this.reset = button({ class: "reset", onclick: back }, TEXT.reset(this.format(value)));
    // Not in the tab order: they are for fingers and mice, the slider's keys do the same.
    const step = (by) => ({ tabindex: "-1", onclick: () => this.slider.disabled || this.turnTo(this.index + by) });
    this.lower = button({ ...step(-1), "aria-label": TEXT.lower }, "−");
    this.higher = button({ ...step(1), "aria-label": TEXT.higher }, "+");
    const top = el("div", {}, el("label", { for: id }, TEXT.threshold), this.reset, this.number);
    this.element = el("div", { class: "dial" }, top, this.lower, this.slider, this.higher);
    this.turnBack();
  }

  get index() {
    return +this.slider.value;
  }

  get isTurned() {
    return this.value !== this.suggested;
  }

  turnBack() {
    this.turnTo(this.values.indexOf(this.suggested));
  }

  turnTo(index) {
    this.slider.value = index;
    const value = this.values[this.index];
    this.number.textContent = this.format(value);
    this.slider.setAttribute("aria-valuetext", this.number.textContent);
    this.lower.disabled = this.index === 0;
    this.higher.disabled = this.index === this.values.length - 1;
    this.reset.hidden = value === this.suggested;
    if (value === this.value) return;
    this.value = value;
    this.onTurn(value);
  }
}
