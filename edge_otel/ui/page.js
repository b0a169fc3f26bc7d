// The fleet page, as Airflow's UI loads it: it renders the function that it finds under the page's name.
import { useAddress, ViewLink } from "./address.js";
import { loginUrl } from "./api.js";
import { useContextOfUser } from "./context.js";
import { FocusKept } from "./focus.js";
import { Jobs } from "./jobs.js";
import { LiveProvider, useLive, useLiveness } from "./live.js";
import { Queues } from "./queues.js";
import { Component, Fragment, h, useEffect, useLayoutEffect, useLocation, useMemo, useNavigate, useRef, useState } from "./react.js";
import { clock } from "./text.js";
import { Tokens } from "./tokens.js";
import { Worker } from "./worker.js";
import { Workers } from "./workers.js";
// Asked for in one go: a browser would find them file by file.
import "./actions.js";
import "./badge.js";
import "./charts.js";
import "./daemon_log.js";
import "./deeds.js";
import "./dialog.js";
import "./new_token.js";
import "./table.js";
import "./token_dialog.js";
import "./worker_line.js";

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("page.css", import.meta.url).href;
const styled = new Promise((done) => {
  style.onload = style.onerror = done;
  // It can be read without.
  setTimeout(done, 3000);
});
document.head.append(style);

const VIEWS = { workers: ["Workers", Workers], queues: ["Queues", Queues], jobs: ["Jobs", Jobs], tokens: ["Tokens", Tokens] };

// Airflow renders a page that it just loaded lazily, and from the next navigation on directly: React then makes the page
// anew, and what somebody typed is lost. A navigation to where we are has that happen before anything can be typed.
let settled = false;
const useSettled = () => {
  const { pathname, search, hash, state } = useLocation();
  const go = useNavigate();
  const was = settled;
  useLayoutEffect(() => {
    if (settled) return;
    settled = true;
    go({ pathname, search, hash }, { replace: true, state });
  }, []);
  return was;
};

// Who looks, while that is not known yet.
const NOBODY = { teams: [], acts: false, sees_tokens: false, makes_tokens: false, trace_url: "" };

// The views ask for what they show while the user is asked for, and are seen when both are there.
const Page = () => {
  const ready = useSettled();
  const liveness = useLiveness();
  const { told, refusal } = useContextOfUser(liveness.paused, styled);
  const live = useMemo(() => ({ ...liveness, context: told ?? NOBODY }), [liveness, told]);
  const style = told ? undefined : { minHeight: "100%", visibility: "hidden" };
  return h(
    Fragment,
    null,
    refusal && h("div", { className: "edge-page" }, h(Failure, { failure: refusal })),
    ready && !refusal && h(LiveProvider, { value: live }, h("div", { className: "edge-page", style }, h(Fuse, null, h(Views)))),
  );
};

const Views = () => {
  const { context, spoken } = useLive();
  const address = useAddress();
  const asked = address.text("view");
  const view = Object.hasOwn(VIEWS, asked) && (asked !== "tokens" || context.sees_tokens) ? asked : "workers";
  const name = view === "workers" ? address.text("worker") : "";
  const Shown = VIEWS[view][1];
  const heading = useRef(null);
  const before = useRef(`${view} ${name}`);
  useEffect(() => {
    if (before.current === `${view} ${name}`) return;
    before.current = `${view} ${name}`;
    // What had the focus may have gone with its view.
    if (document.activeElement === document.body) heading.current.focus({ preventScroll: true });
  }, [view, name]);
  if (asked === "tokens" && context === NOBODY) return null;
  return [
    h(
      "header",
      { key: "header", className: "edge-header" },
      h("h1", { ref: heading, tabIndex: -1 }, "Edge workers"),
      h(
        "nav",
        { "aria-label": "Views of the fleet", className: "edge-tabs" },
        Object.entries(VIEWS)
          .filter(([key]) => key !== "tokens" || context.sees_tokens)
          .map(([key, [title]]) => h(ViewLink, { key, to: key === "workers" ? {} : { view: key }, "aria-current": key === view ? "page" : undefined }, title)),
      ),
      h(Pulse),
    ),
    h(Trouble, { key: "trouble" }),
    h(FocusKept, { key: "view", className: "edge-view" }, name ? h(Worker, { key: name, name }) : h(Shown, { key: view })),
    h("div", { key: "said", ref: spoken, role: "status", className: "edge-unseen" }),
  ];
};

// Whether the page is live, and the switch.
const Pulse = () => {
  const { paused, turn, failure } = useLive();
  const state = paused ? "paused" : failure ? "waiting" : "live";
  return h(
    "div",
    { className: "edge-pulse" },
    h("span", { className: `edge-dot edge-dot-${state}`, "aria-hidden": true }),
    h("span", { className: "edge-muted" }, { paused: "paused", waiting: "not updated", live: "live" }[state]),
    h("button", { type: "button", className: "edge-button", "aria-pressed": paused, onClick: () => turn(!paused) }, paused ? "Resume" : "Pause"),
  );
};

const Trouble = () => {
  const { failure, paused, updated } = useLive();
  return failure && h(Failure, { failure, paused, updated });
};

const Failure = ({ failure, paused, updated }) =>
  h(
    "div",
    { role: "alert", className: "edge-alert" },
    failure.message,
    " ",
    failure.status === 401 ? h("a", { href: loginUrl() }, "Log in again") : failure.status !== 403 && !paused && "It is tried again every few seconds.",
    updated && ` Not updated since ${clock(new Date(updated).toISOString())}.`,
  );

// A fault of one view leaves Airflow and the other views alone.
class Fuse extends Component {
  state = { blown: null };

  static getDerivedStateFromError(fault) {
    return { blown: fault };
  }

  render() {
    if (!this.state.blown) return this.props.children;
    return h(
      "div",
      { role: "alert", className: "edge-alert" },
      `The page failed: ${this.state.blown.message}. `,
      h("button", { type: "button", className: "edge-button", onClick: () => this.setState({ blown: null }) }, "Try again"),
    );
  }
}

globalThis["Edge workers"] = Page;
