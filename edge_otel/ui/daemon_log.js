// The end of a daemon's log: the newest line at the bottom, in sight unless somebody has scrolled up.
import { h, useLayoutEffect, useRef } from "./react.js";
import { clock } from "./text.js";

const LOUD = { WARNING: "asked", ERROR: "bad", CRITICAL: "bad" };

export const DaemonLog = ({ lines, hidden, name }) => {
  const box = useRef(null);
  const following = useRef(true);
  useLayoutEffect(() => {
    if (following.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines]);
  if (hidden) return h("p", { className: "edge-muted" }, "It is shown to those who may act on this worker: it names jobs of every DAG.");
  if (!lines.length) return h("p", { className: "edge-muted" }, "Nothing of it has come yet.");
  const scrolled = ({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
    following.current = scrollHeight - scrollTop - clientHeight < 8;
  };
  return h(
    "div",
    // It would be read aloud with every look.
    { ref: box, className: "edge-log", role: "log", "aria-live": "off", "aria-label": `Log of ${name}, the newest line last`, tabIndex: 0, onScroll: scrolled },
    keyed(lines).map(([key, line]) =>
      h(
        "div",
        { key },
        h("time", { dateTime: line.at }, clock(line.at)),
        " ",
        h("b", { className: LOUD[line.level] ? `edge-level-${LOUD[line.level]}` : undefined }, line.level),
        " ",
        h("span", { className: "edge-logger" }, line.logger),
        " ",
        line.text,
      ),
    ),
  );
};

// Lines may be the same to the letter: the second one of a time is another than the first.
const keyed = (lines) => {
  const seen = new Map();
  return lines.map((line) => {
    const nth = seen.get(line.at) ?? 0;
    seen.set(line.at, nth + 1);
    return [`${line.at} ${nth}`, line];
  });
};
