// The fleet: a filtered page of workers, and what is done to those that are picked.
import { ActionDialog } from "./actions.js";
import { StateChips, TextFilter, useAddress, ViewLink } from "./address.js";
import { query } from "./api.js";
import { Badge, WORKER_STATES } from "./badge.js";
import { DEEDS } from "./deeds.js";
import { Menu } from "./dialog.js";
import { useLive, usePolled } from "./live.js";
import { Fragment, h, useEffect, useState } from "./react.js";
import { COLUMNS, WorkerLine } from "./worker_line.js";
import { Loading, pageOf, Pager, SortChoice, sorting, Table } from "./table.js";
import { count } from "./text.js";

const filterOf = (address) => ({
  search: address.text("search"),
  queue: address.all("queue").filter(Boolean),
  state: address.all("state"),
  team: address.text("team"),
});

export const Workers = () => {
  const { context } = useLive();
  const address = useAddress();
  const filter = filterOf(address);
  const [sort, descending] = sorting(address);
  const path = `workers${query({ ...filter, sort, descending, ...pageOf(address) })}`;
  const answer = usePolled(path);
  const picks = usePicks(JSON.stringify(filter), answer.data, answer.path === path && !filter.state.length);
  const [doing, setDoing] = useState(null);
  const page = answer.data;
  const filtered = JSON.stringify(filter) !== JSON.stringify(filterOf(EMPTY));
  const none = filtered ? "No worker matches this filter." : "No worker has registered yet.";
  const columns = context.acts ? [...COLUMNS, { label: "Actions", hidden: true }] : COLUMNS;
  const begin = (deed, opener, worker) =>
    setDoing({ deed, opener, target: worker ? { selection: { names: [worker.name] }, worker, text: worker.name } : picks.target(filter) });
  const close = (removed) => {
    setDoing(null);
    picks.drop(removed);
  };
  return h(
    Fragment,
    null,
    h(Filters, { address, page, context }),
    h(
      "div",
      { className: "edge-toolbar" },
      page && context.acts && h(Picked, { picks, page, begin }),
      h(SortChoice, { columns, address }),
    ),
    page?.total > 0 &&
      h(
        Table,
        { caption: "Workers", columns, address, busy: answer.path !== path, head: context.acts && h(PickAll, { picks, page }) },
        page.workers.map((worker) =>
          h(WorkerLine, { key: worker.name, worker, now: page.at, picks, begin: (deed, opener) => begin(deed, opener, worker) }),
        ),
      ),
    page && page.total === 0 && h(Nobody, { filtered, none, context }),
    page && h(Pager, { address, total: page.total, noun: "worker", none, settled: answer.path === path }),
    answer.refusal && h("p", { role: "alert", className: "edge-alert" }, answer.refusal.message),
    !page && !answer.refusal && h(Loading),
    doing && h(ActionDialog, { ...doing, onClose: close }),
  );
};

const EMPTY = { text: () => "", all: () => [] };

const Filters = ({ address, page, context }) =>
  h(
    "form",
    { className: "edge-filters", role: "search", "aria-label": "Filter workers", onSubmit: (event) => event.preventDefault() },
    h(TextFilter, { name: "search", most: 64, label: "Name", address }),
    h(TextFilter, { name: "queue", label: "Queue", address, hint: "name or glob" }),
    context.teams.length > 0 && h(Team, { address, teams: context.teams }),
    h(StateChips, { address, states: WORKER_STATES, counts: page?.states ?? {}, label: "States" }, (state) => h(Badge, { state })),
  );

const Team = ({ address, teams }) =>
  h(
    "label",
    { className: "edge-field" },
    h("span", null, "Team"),
    h(
      "select",
      { value: address.text("team"), onChange: (event) => address.change({ team: event.target.value }) },
      h("option", { value: "" }, "any"),
      [...new Set([...teams, address.text("team")])].filter(Boolean).map((team) => h("option", { key: team, value: team }, team)),
    ),
  );

const Nobody = ({ filtered, none, context }) =>
  h(
    "p",
    { className: "edge-empty" },
    none,
    filtered && [" ", h(ViewLink, { key: "all", to: {} }, "Show all")],
    !filtered && context.makes_tokens && [" ", h(ViewLink, { key: "tokens", to: { view: "tokens" } }, "Make a token"), " and start one with it."],
  );

// Which workers are picked: names, or all that match the filter but for names. Another filter begins anew.
const usePicks = (filter, page, settled) => {
  const nothing = { filter, names: new Set(), all: false, last: null };
  const [picked, setPicked] = useState(nothing);
  const mine = picked.filter === filter ? picked : nothing;
  const shown = page?.workers.map((worker) => worker.name) ?? [];
  const has = (name) => mine.all !== mine.names.has(name);
  const change = (names, on, last = null) => {
    const next = new Set(mine.names);
    for (const name of names) {
      if (on !== mine.all) next.add(name);
      else next.delete(name);
    }
    setPicked({ ...mine, names: next, last });
  };
  const drop = (names) => setPicked((now) => ({ ...now, names: new Set([...now.names].filter((name) => !names.includes(name))) }));
  // Where all are in sight, one that is not is gone.
  const gone = settled && page?.total === shown.length ? [...mine.names].filter((name) => !shown.includes(name)) : [];
  useEffect(() => {
    if (gone.length) drop(gone);
  }, [gone.join()]);
  const size = mine.all ? Math.max(0, (page?.total ?? 0) - mine.names.size) : mine.names.size;
  return {
    size,
    everything: mine.all && mine.names.size === 0,
    has,
    whole: shown.length > 0 && shown.every(has),
    some: size > 0,
    // With shift, the same happens to all from the last one on, wherever the rows are now.
    toggle: (name, on, range) => {
      const [at, last] = [shown.indexOf(name), shown.indexOf(range ? mine.last : name)];
      change(last < 0 ? [name] : shown.slice(Math.min(last, at), Math.max(last, at) + 1), on, name);
    },
    page: (on) => change(shown, on),
    all: () => setPicked({ ...nothing, all: true }),
    clear: () => setPicked(nothing),
    drop,
    target: ({ search, queue, state, team }) => {
      if (!mine.all) return { selection: { names: [...mine.names] }, text: count(size, "worker") };
      const filtered = { search, queues: queue, states: state, ...(team ? { team } : {}) };
      const none = !search && !queue.length && !state.length && !team;
      const text = mine.names.size ? `${count(size, "worker")}: all that match but for ${mine.names.size.toLocaleString()}` : `all ${count(size, "worker")} that match`;
      return { selection: none ? { names: ["*"] } : filtered, except: mine.names, text };
    },
  };
};

const PickAll = ({ picks, page }) =>
  h("input", {
    type: "checkbox",
    "aria-label": "Select all on this page",
    checked: picks.whole,
    disabled: page.workers.length === 0,
    ref: (box) => {
      if (box) box.indeterminate = picks.some && !picks.whole;
    },
    onChange: (event) => picks.page(event.target.checked),
  });

const Picked = ({ picks, page, begin }) =>
  h(
    "div",
    { className: "edge-picked", role: "group", "aria-label": "Selection" },
    h(
      Menu,
      {
        disabled: picks.size === 0,
        className: "edge-button edge-primary",
        items: DEEDS.map((deed) => ({ text: `${deed.text} …`, pick: (opener) => begin(deed, opener) })),
      },
      "Actions ▾",
    ),
    h("span", null, picks.everything ? `all ${count(picks.size, "worker")} selected` : `${picks.size.toLocaleString()} selected`),
    !picks.everything &&
      page.total > 0 &&
      h("button", { type: "button", className: "edge-link", onClick: picks.all }, `Select all ${page.total.toLocaleString()} that match`),
    picks.some && h("button", { type: "button", className: "edge-link", onClick: picks.clear }, "Clear"),
  );
