import { TEXT } from "./words.js";

/** Numbers and days as the bank's customers write them. */
export class Formats {
  constructor({ currency, locale }) {
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

  /** The merchant of a purchase and, where it is known, the amount. */
  purchase({ merchant, amount }) {
    return [merchant || TEXT.nameless, ...(amount == null ? [] : [this.money(amount)])];
  }

  dated(purchase) {
    return [this.day(purchase.date), ...this.purchase(purchase)];
  }
}
