// One worker: how it stands, its load, its jobs, its history, and the last lines of its log.
import { ActionDialog } from "./actions.js";
import { useAddress, ViewLink } from "./address.js";
import { query } from "./api.js";
import { Badge, GONE } from "./badge.js";
import { Load } from "./charts.js";
import { DaemonLog } from "./daemon_log.js";
import { Menu } from "./dialog.js";
import { JobTable, traceUrl } from "./jobs.js";
import { useLive, usePolled } from "./live.js";
import { Fragment, h, useState } from "./react.js";
import { Loading, Moment } from "./table.js";
import { cause, clock, count, duration, origin, queuesOf } from "./text.js";
import { deedsFor, Heartbeat, Skew, SKEWED, Slots, StateOf, Versions } from "./worker_line.js";

// A browser takes a dot for a folder. Encoded twice, it is a name that the server refuses like others that cannot be.
const inPath = (name) => encodeURIComponent(name).replace(/^\.{1,2}$/, (dots) => "%252E".repeat(dots.length));

export const Worker = ({ name }) => {
  const address = useAddress();
  const [actions, setActions] = useState(false);
  const { data, refusal } = usePolled(`workers/${inPath(name)}${query({ actions })}`);
  const [doing, setDoing] = useState(null);
  const begin = (deed, opener) => setDoing({ deed, opener, target: { selection: { names: [name] }, worker: data.worker, text: name } });
  const close = (removed) => {
    setDoing(null);
    if (removed.length) address.change({ worker: "" }, { replace: true });
  };
  return h(
    Fragment,
    null,
    h("p", null, h(ViewLink, { to: {} }, "← All workers")),
    refusal ? h("p", { role: "alert", className: "edge-alert" }, refusal.message) : data ? h(Whole, { name, data, begin, actions, setActions }) : h(Loading),
    doing && h(ActionDialog, { ...doing, onClose: close }),
  );
};

const Whole = ({ name, data, begin, actions, setActions }) => {
  const { context } = useLive();
  const { worker, at } = data;
  const people = h("button", { type: "button", className: "edge-button edge-small", "aria-pressed": actions, onClick: () => setActions(!actions) }, "only what people did");
  const jobs = h(ViewLink, { to: { view: "jobs", worker_is: name } }, worker.jobs > 0 ? `${count(worker.jobs, "job")} now` : "all");
  return h(
    Fragment,
    null,
    h(
      "div",
      { className: "edge-title" },
      h("h2", null, worker.name),
      context.acts && h(Menu, { items: deedsFor(worker, begin), className: "edge-button edge-primary" }, "Actions ▾"),
    ),
    h("div", { className: "edge-panels" }, h(Standing, { worker, data, context }), h(Host, { worker })),
    h("div", { className: "edge-panels" }, h(Section, { title: "History", more: people }, h(History, { events: data.events, now: at, actions })), h(Section, { title: "Log of the daemon" }, h(DaemonLog, { lines: data.log, hidden: data.log_hidden, name }))),
    h(Section, { title: "Jobs", more: data.jobs.length > 0 && jobs }, data.jobs.length ? h(JobTable, { jobs: data.jobs, now: at, caption: `Jobs of ${name}`, alone: true }) : h(Nothing, null, "It has had no job yet.")),
    h(Section, { title: "Facts that it reports" }, h(Facts, { facts: data.facts })),
  );
};

export const Section = ({ title, more, children }) =>
  h("section", { className: "edge-section", "aria-label": title }, h("h3", null, title, more && h("span", { className: "edge-muted" }, " ", more)), children);

const Nothing = ({ children }) => h("p", { className: "edge-muted" }, children);

const List = ({ entries }) =>
  h(
    "dl",
    { className: "edge-list" },
    entries.filter(Boolean).map(([term, told]) => h("div", { key: term }, h("dt", null, term), h("dd", null, told))),
  );

const Standing = ({ worker, data, context }) =>
  h(
    Section,
    { title: "State" },
    h(List, {
      entries: [
        ["State", h(StateOf, { worker, now: data.at })],
        ["Since", `${clock(worker.state_since)}, ${cause(worker.state_cause)}`],
        ["Heartbeat", h(Heartbeat, { worker })],
        ["Link", worker.transport === "channel" ? "one WebSocket" : "HTTP requests"],
        worker.maintenance_origin && ["Maintenance", `${worker.maintenance_comment ?? "no comment"}, ${origin(worker.maintenance_origin)}`],
        ["Queues", queuesOf(worker.queues)],
        worker.team && ["Team", worker.team],
        ["Slots", h(Slots, { worker })],
        ["When cut off", worker.jobs_stopped_after === null ? "keeps jobs" : `jobs stopped in ${duration(worker.jobs_stopped_after)}`],
        ["Versions", h(Versions, { worker, context })],
        ["First online", h(Moment, { at: worker.first_online, now: data.at })],
        ["Token", data.token_id === null ? "the shared secret of edge3" : context.sees_tokens ? h(ViewLink, { to: { view: "tokens", search: data.token_id } }, data.token_id) : data.token_id],
      ],
    }),
  );

const Host = ({ worker }) =>
  h(
    Section,
    { title: "Host", more: GONE.includes(worker.state) ? "the last hour that it was there" : "the last hour" },
    h(List, {
      entries: [
        ["CPU", h(Load, { value: worker.cpu_percent, history: worker.load_history.cpu, label: "CPU" })],
        ["Memory", h(Load, { value: worker.memory_percent, history: worker.load_history.memory, label: "Memory" })],
        ["Disk", h(Load, { value: worker.disk_percent, label: "Disk" })],
        ["Health", worker.health ?? "not told"],
        ["Clock", worker.clock_skew === null ? "not told" : Math.abs(worker.clock_skew) > SKEWED ? h(Skew, { seconds: worker.clock_skew }) : "as the server's"],
      ],
    }),
  );

const History = ({ events, now, actions }) => {
  const { context } = useLive();
  if (!events.length) return h(Nothing, null, actions ? "Nobody has done anything to it." : "Nothing is known of its past.");
  return h(
    "ol",
    { className: "edge-timeline", tabIndex: 0, "aria-label": "History, the newest first" },
    events.map((event) => {
      const trace = traceUrl(context.trace_url, event.trace_id);
      return h(
        "li",
        { key: JSON.stringify([event.at, event.from_state, event.to_state, event.detail]) },
        h(Moment, { at: event.at, now }),
        h(
          "div",
          null,
          event.from_state !== event.to_state && h(Badge, { state: event.to_state }),
          h("span", { className: "edge-muted" }, ` ${cause(event.cause)} `),
          trace && h("a", { href: trace, target: "_blank", rel: "noreferrer" }, "trace"),
          event.detail && h("div", { className: "edge-detail" }, event.detail),
        ),
      );
    }),
  );
};

const Facts = ({ facts }) =>
  h(List, { entries: Object.keys(facts).sort().map((name) => [name, typeof facts[name] === "string" ? facts[name] : JSON.stringify(facts[name])]) });
