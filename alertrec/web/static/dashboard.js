/* Draws the pictures of the dashboard, and takes over in place what a page that was asked for again has changed.
   No inline script or style, no eval: the content security policy forbids them. */
"use strict";

const charts = new Map(); // canvas -> { chart, drawn: the JSON that it shows }
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

// --- Colours: those of dashboard.css, read anew when the scheme changes.

function palette() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

function translucent(colour, percent) {
  return `color-mix(in srgb, ${colour} ${percent}%, transparent)`;
}

// --- What the four kinds of pictures look like.

function axis(colour, more = {}) {
  return {
    border: { display: false },
    grid: { color: colour("grid"), drawTicks: false },
    ticks: { color: colour("soft"), padding: 8, maxRotation: 0, autoSkipPadding: 16 },
    ...more,
  };
}

function plainAxis(colour, more = {}) {
  return axis(colour, { grid: { display: false }, ...more });
}

function options(colour, more) {
  return {
    maintainAspectRatio: false,
    animation: calm.matches ? false : { duration: 700, easing: "easeOutCubic" },
    interaction: { mode: "index", intersect: false },
    ...more,
    plugins: {
      legend: { align: "start", labels: { color: colour("ink"), usePointStyle: true, boxHeight: 7, padding: 18, sort: (a, b) => a.datasetIndex - b.datasetIndex } },
      ...more.plugins,
      tooltip: {
        backgroundColor: colour("tip"), titleColor: colour("tip-ink"), bodyColor: colour("tip-ink"),
        padding: 12, cornerRadius: 8, usePointStyle: true, boxPadding: 6, itemSort: (a, b) => a.datasetIndex - b.datasetIndex,
        ...more.plugins?.tooltip,
      },
    },
  };
}

const LINES = {
  shown: { pointStyle: "rect", borderWidth: 1.5, fill: true, order: 4 },
  accepted: { pointStyle: "circle", borderWidth: 2.5, fill: true, order: 1 },
  dismissed: { pointStyle: "triangle", borderWidth: 2, borderDash: [6, 3], order: 2 },
  snoozed: { pointStyle: "rectRot", borderWidth: 2, borderDash: [2, 3], order: 3 },
};

function days(spec, colour) {
  const datasets = spec.series.map(({ name, tone, values }) => ({
    label: name, data: values, ...LINES[tone],
    borderColor: colour(tone), pointBackgroundColor: colour(tone),
    backgroundColor: translucent(colour(tone), tone === "shown" ? 16 : 24),
    cubicInterpolationMode: "monotone", pointRadius: values.length > 10 ? 0 : 3.5, pointHoverRadius: 5,
  }));
  const tooltip = { callbacks: { title: ([first]) => spec.titles[first.dataIndex] } };
  const scales = { x: plainAxis(colour), y: axis(colour, { beginAtZero: true, suggestedMax: 5 }) };
  scales.y.ticks.precision = 0;
  return { type: "line", data: { labels: spec.labels, datasets }, options: options(colour, { scales, plugins: { tooltip } }) };
}

const POINTS = { accepted: "circle", dismissed: "triangle", snoozed: "rectRot", silent: "rect" };

function alerts(spec, colour) {
  const datasets = spec.series.map(({ name, tone, values }) => ({
    label: name, data: values, backgroundColor: colour(tone), pointStyle: POINTS[tone],
    borderColor: colour("card"), borderWidth: { right: 2 }, borderSkipped: false, maxBarThickness: 24,
  }));
  const scales = { x: axis(colour, { stacked: true }), y: plainAxis(colour, { stacked: true }) };
  scales.x.ticks.precision = 0;
  scales.y.ticks = { ...scales.y.ticks, color: colour("ink"), autoSkip: false };
  const tooltip = { callbacks: { title: ([first]) => [].concat(spec.labels[first.dataIndex]).join(" "), label: shareOfAll(spec) } };
  const data = { labels: spec.labels, datasets };
  return { type: "bar", data, options: options(colour, { indexAxis: "y", scales, plugins: { tooltip } }) };
}

function shareOfAll(spec) {
  return ({ dataset, dataIndex, raw }) => {
    const all = spec.series.reduce((sum, each) => sum + each.values[dataIndex], 0);
    return ` ${dataset.label}: ${raw.toLocaleString("en")} (${Math.round((100 * raw) / Math.max(all, 1))}%)`;
  };
}

function reliability(spec, colour) {
  const most = Math.max(1, ...spec.points.map((point) => point.n));
  const radius = spec.points.map((point) => 4 + 12 * Math.sqrt(point.n / most));
  const perfect = [{ x: 0, y: 0 }, { x: spec.limit, y: spec.limit }];
  const datasets = [
    {
      label: "Groups of offers", data: spec.points, pointRadius: radius, pointHoverRadius: radius, whiskers: colour("accepted"),
      backgroundColor: translucent(colour("accepted"), 55), borderColor: colour("accepted"), borderWidth: 1.5,
    },
    { label: "Exactly as promised", type: "line", data: perfect, borderColor: colour("soft"), borderDash: [5, 5], borderWidth: 1.5, pointRadius: 0, pointHitRadius: 0, pointStyle: "line" },
  ];
  const share = (title) => axis(colour, {
    min: 0, max: spec.limit, type: "linear", title: { display: true, text: title, color: colour("soft") },
  });
  const scales = { x: share("Promised"), y: share("Accepted") };
  for (const each of Object.values(scales)) each.ticks.callback = (value) => `${Math.round(value * 100)}%`;
  const tooltip = { filter: (item) => item.datasetIndex === 0, callbacks: { label: ({ raw }) => ` ${raw.note}` } };
  const interaction = { mode: "nearest", intersect: true };
  return { type: "scatter", data: { datasets }, options: options(colour, { interaction, scales, plugins: { tooltip } }) };
}

const whiskers = {
  id: "whiskers",
  beforeDatasetDraw(chart, { index, meta }) {
    const dataset = chart.data.datasets[index];
    if (!dataset.whiskers) return;
    const { ctx, scales } = chart;
    ctx.save();
    ctx.strokeStyle = dataset.whiskers;
    ctx.lineWidth = 2;
    ctx.lineCap = "round";
    meta.data.forEach((point, i) => {
      ctx.beginPath();
      ctx.moveTo(point.x, scales.y.getPixelForValue(dataset.data[i].low));
      ctx.lineTo(point.x, scales.y.getPixelForValue(dataset.data[i].high));
      ctx.stroke();
    });
    ctx.restore();
  },
};

const SHAPES = ["circle", "triangle", "rectRot", "rect", "star", "crossRot"];

function spending(spec, colour) {
  const bars = {
    type: "bar", label: "Spent", data: spec.values, notes: spec.notes, yAxisID: "y", order: 2,
    backgroundColor: translucent(colour("accepted"), 70), borderRadius: 2, pointStyle: "rect",
  };
  const lanes = spec.lanes.map((firings, i) => ({
    type: "scatter", label: `Rule ${i + 1}`, yAxisID: "lanes", order: 1,
    data: firings.map(({ x }) => ({ x, y: i })), parsing: false, // places on both axes already
    notes: firings.map((firing) => firing.note),
    pointStyle: SHAPES[i % 6], pointRadius: 5, pointHoverRadius: 7,
    backgroundColor: colour(`lane-${i % 6}`), borderColor: colour(`lane-${i % 6}`), borderWidth: i % 6 > 3 ? 2 : 0,
  }));
  const y = axis(colour, { beginAtZero: true, grace: "12%", stack: "picture", stackWeight: 4, weight: 1 });
  y.ticks.callback = (value, i, ticks) => (i && i === ticks.length - 1 ? "" : value.toLocaleString("en")); // there the lanes begin
  const scales = { x: plainAxis(colour), y };
  if (lanes.length) scales.lanes = laneAxis(colour, spec.lanes.length);
  const label = ({ dataset, dataIndex }) => ` ${dataset.notes[dataIndex]}`;
  const tooltip = { callbacks: { title: ([first]) => spec.titles[first.parsed.x], label } };
  const interaction = { mode: "x", intersect: false };
  return { data: { labels: spec.labels, datasets: [bars, ...lanes] }, options: options(colour, { interaction, scales, plugins: { tooltip } }) };
}

function laneAxis(colour, n) {
  const labels = Array.from({ length: n }, (_, i) => `${i + 1}`);
  const lanes = axis(colour, { type: "category", labels, offset: true, stack: "picture", stackWeight: Math.min(Math.max(0.8, n * 0.55), 5), weight: 2 });
  lanes.grid.offset = false;
  lanes.ticks.autoSkip = n > 12;
  return lanes;
}

const KINDS = { days, alerts, reliability, spending };

// --- Draw what is new, renew what has changed, forget what is gone.

function draw(figure, again) {
  const canvas = figure.querySelector("canvas");
  const wanted = figure.dataset.chart;
  const present = charts.get(canvas);
  if (present?.drawn === wanted && !again) return;
  const spec = JSON.parse(wanted);
  const config = KINDS[spec.kind](spec, palette());
  if (present) takeOver(present.chart, config);
  const chart = present?.chart ?? new Chart(canvas, { ...config, plugins: [whiskers] });
  charts.set(canvas, { chart, drawn: wanted });
}

function takeOver(chart, { data, options }) {
  const present = chart.data.datasets;
  chart.data.labels = data.labels;
  chart.data.datasets = data.datasets.map((each, i) => (present[i]?.type === each.type ? Object.assign(present[i], each) : each));
  chart.options = options;
  chart.update();
}

function drawAll(again = false) {
  for (const [canvas, { chart }] of charts) {
    if (canvas.isConnected) continue;
    chart.destroy();
    charts.delete(canvas);
  }
  document.querySelectorAll("[data-chart]").forEach((figure) => draw(figure, again));
}

// --- The swap "steady": nodes stay, and with them focus, open details, selections and running animations.

function become(present, wanted) {
  if (present.isEqualNode(wanted)) return;
  if (present.nodeName !== wanted.nodeName || present.id !== wanted.id) present.replaceWith(wanted);
  else if (present.nodeType !== Node.ELEMENT_NODE) present.nodeValue = wanted.nodeValue;
  else {
    takeAttributes(present, wanted);
    if (present.nodeName !== "CANVAS") takeChildren(present, wanted);
  }
}

function takeAttributes(present, wanted) {
  const ours = present.nodeName === "CANVAS" ? ["width", "height", "style"] : ["open"]; // what is not the server's to say
  for (const { name, value } of wanted.attributes) if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  for (const { name } of [...present.attributes]) if (!wanted.hasAttribute(name) && !ours.includes(name)) present.removeAttribute(name);
}

function takeChildren(present, wanted) {
  let next = present.firstChild;
  for (const child of [...wanted.childNodes]) {
    const same = child.id ? [...present.children].find((each) => each.id === child.id) : next?.id ? null : next;
    if (!same) {
      present.insertBefore(child, next);
      continue;
    }
    while (next && next !== same) next = removed(next);
    next = same.nextSibling;
    become(same, child);
  }
  while (next) next = removed(next);
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

htmx.defineExtension("steady", {
  handleSwap(style, target, fragment) {
    if (style !== "steady") return false;
    if (!fragment.firstElementChild) location.reload(); // another page came, such as the one to sign in
    else become(target, fragment.firstElementChild);
    drawAll();
    return [target];
  },
});

// --- Live or not: who reads may pause, a hidden page asks for nothing, and a server that is away is told of.

let paused = false;

function tell(state, word) {
  const pulse = document.getElementById("pulse");
  if (!pulse) return;
  pulse.hidden = false;
  pulse.dataset.state = state;
  const said = pulse.querySelector(".state");
  if (said.textContent !== word) said.textContent = word;
}

function togglePause({ currentTarget: button }) {
  paused = !paused;
  button.setAttribute("aria-pressed", paused);
  tell(paused ? "paused" : "live", paused ? "Paused" : "Live");
}

function answered(popover) {
  popover.hidePopover();
  document.getElementById("result").focus(); // the button that opened it may be gone
}

function isPoll(event) {
  return event.target.id === "live" && event.detail.requestConfig.verb === "get";
}

document.addEventListener("htmx:beforeRequest", (event) => {
  if (isPoll(event) && (paused || document.hidden)) event.preventDefault();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 409) event.detail.shouldSwap = true; // a refusal, with its reason
});
document.addEventListener("htmx:afterRequest", (event) => {
  const popover = event.detail.requestConfig.elt.closest("[popover]"); // the answer may have taken it from the page
  if (popover) answered(popover);
  const { status } = event.detail.xhr;
  if (status === 401 || status === 403) tell("away", "Signed out: load the page again");
  else if (status === 0 || status >= 500) tell("away", "No connection, trying again");
  else if (!paused) tell("live", "Live");
});

htmx.config.historyCacheSize = 0; // what customers did is not kept in the browser
htmx.config.refreshOnHistoryMiss = true;
dark.addEventListener("change", () => drawAll(true));
document.addEventListener("DOMContentLoaded", () => {
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 13;
  document.querySelector("#pulse button")?.addEventListener("click", togglePause);
  tell("live", "Live");
  drawAll();
});
