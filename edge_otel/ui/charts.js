// Bars and sparklines. Each has its figure beside it in words, so that none is needed to read the page.
import { percent } from "./text.js";
import { h } from "./react.js";

const HIGH = 90;
const WARM = 75;

const heat = (value) => (value >= HIGH ? "high" : value >= WARM ? "warm" : "fine");

export const Bar = ({ value, most = 100, tone }) =>
  h(
    "span",
    { className: "edge-bar", "aria-hidden": true },
    h("span", { className: `edge-bar-${tone ?? heat(value)}`, style: { width: `${Math.min(100, (100 * value) / (most || 1))}%` } }),
  );

export const Load = ({ value, history, label }) =>
  value === null
    ? h("span", { className: "edge-muted" }, "–")
    : h(
        "span",
        { className: `edge-load edge-load-${heat(value)}` },
        h("span", { className: "edge-load-figure" }, percent(value), value >= HIGH && h("span", { className: "edge-mark", title: `${label} is nearly full` }, "!")),
        history ? h(Sparkline, { samples: history }) : h(Bar, { value }),
      );

// Samples in percent, oldest first; null where nothing is known.
export const Sparkline = ({ samples, width = 60, height = 16, slots = 60 }) => {
  if (samples.filter((sample) => sample !== null).length < 2) return h(Bar, { value: samples.at(-1) ?? 0 });
  const step = width / (slots - 1);
  const from = width - step * (samples.length - 1);
  const runs = [];
  samples.forEach((sample, index) => {
    if (sample === null) return;
    const point = `${(from + index * step).toFixed(1)},${(height - 1 - (sample / 100) * (height - 2)).toFixed(1)}`;
    if (index && samples[index - 1] !== null) runs.at(-1).push(point);
    else runs.push([point]);
  });
  return h(
    "svg",
    { className: "edge-spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": true },
    h("line", { x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5, className: "edge-spark-ground" }),
    runs.map((run, index) => h("polyline", { key: index, points: run.join(" "), className: "edge-spark-line" })),
  );
};
