import { el, svg } from "./elements.js";
import { TEXT } from "./words.js";

const DAY_MS = 86_400_000;

/** Say how often a rule would have fired; of a rule that stands, how often it has. */
export function firingsText({ test, change, formats }) {
  if (!test || test.isUnknown) return TEXT.untested;
  const { count, window_days: days } = test;
  if (!change) return TEXT.fired(formats.times(count), days);
  const now = TEXT.now(formats.times(change.fired.count), days);
  return change.advice === "retire" ? now : `${now}, ${TEXT.then(formats.times(count))}`;
}

/** Draw on which days of the window it fired; `listedAt` is the window's end where the test does not tell. */
export function timeline({ test, formats, listedAt, label }) {
  const { window_days: days, until, examples, dates = examples.map((each) => each.date) } = test;
  const today = Math.floor(Date.parse(until ?? listedAt) / DAY_MS) * DAY_MS;
  const end = Math.max(today, ...dates.map((day) => Date.parse(day)));
  const start = end - (days - 1) * DAY_MS;
  const x = (time) => `${2 + (96 * (Math.max(time, start) - start)) / (end - start)}%`;
  const tick = (day) => {
    const n = dates.filter((each) => each === day).length;
    const what = examples.filter((each) => each.date === day).map((each) => formats.purchase(each).join(" "));
    const hint = svg("title", {}, [formats.day(day), ...what].join(", "));
    const at = x(Date.parse(day));
    return svg("line", { class: n > 1 ? "tick many" : "tick", x1: at, x2: at, y1: 5, y2: 19 }, hint);
  };
  const latest = examples.map((each) => formats.dated(each).join(", ")).join("; ");
  const told = latest ? `${label}. ${TEXT.latest}: ${latest}` : label;
  const line = svg("line", { x1: "1.5%", x2: "98.5%", y1: 12, y2: 12 });
  const ends = [start, end].map((day) => el("span", { "aria-hidden": "true" }, formats.day(day)));
  return [svg("svg", { role: "img", "aria-label": told }, line, ...[...new Set(dates)].map(tick)), ...ends];
}
