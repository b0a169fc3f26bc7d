// The view, its filters and its page are in the address: each is a link, and the browser's back button works.
import { h, Link, useCallback, useEffect, useMemo, useRef, useSearchParams, useState } from "./react.js";

const DEFAULTS = { offset: "0", limit: "50" };

// What the address says, and how to change it: change({state: [...]}) starts at the first page again. A function gets
// the values that are there.
export const useAddress = () => {
  const [search, setSearch] = useSearchParams();
  const change = useCallback(
    // Of the window: what is drawn may be behind it.
    (changes, options) => setSearch(changed(new URLSearchParams(location.search), "offset" in changes ? changes : { offset: "", ...changes }), options),
    [setSearch],
  );
  return useMemo(
    () => ({
      change,
      all: (name) => search.getAll(name),
      // A number that somebody typed wrongly is as none at all.
      number: (name) => (/^\d{1,6}$/.test(search.get(name) ?? "") ? Number(search.get(name)) : Number(DEFAULTS[name] ?? 0)),
      text: (name) => search.get(name) ?? DEFAULTS[name] ?? "",
    }),
    [change, search],
  );
};

const changed = (search, changes) => {
  const next = new URLSearchParams(search);
  for (const [name, wanted] of Object.entries(changes)) {
    const value = typeof wanted === "function" ? wanted(next.getAll(name)) : wanted;
    next.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one !== "" && one !== DEFAULTS[name]) next.append(name, one);
  }
  return next;
};

// A link to a view of this page: {view: "jobs", queue: "q"}; nothing of the present address is kept.
export const ViewLink = ({ to, children, ...rest }) =>
  h(Link, { to: { search: changed(new URLSearchParams(), to).toString() }, ...rest }, children);

// A text that filters while somebody types, a moment later.
export const TextFilter = ({ name, label, address, hint, most = 250 }) => {
  const value = address.text(name);
  const [typed, setTyped] = useState(value);
  const sent = useRef(value);
  const latest = useRef(address);
  latest.current = address;
  useEffect(() => {
    if (value !== sent.current) {
      sent.current = value;
      setTyped(value);
    }
  }, [value]);
  useEffect(() => {
    if (typed === sent.current) return undefined;
    const timer = setTimeout(() => {
      sent.current = typed;
      latest.current.change({ [name]: typed }, { replace: true });
    }, 80);
    return () => clearTimeout(timer);
  }, [typed, name]);
  return h(
    "label",
    { className: "edge-field" },
    h("span", null, label),
    h("input", { type: "search", value: typed, placeholder: hint, maxLength: most, spellCheck: false, autoComplete: "off", onChange: (event) => setTyped(event.target.value) }),
  );
};

// States to choose from, with how many there are of each.
export const StateChips = ({ address, states, counts, label, children }) => {
  const chosen = address.all("state");
  const shown = states.filter((state) => counts[state] || chosen.includes(state));
  const toggle = (state) => address.change({ state: (now) => (now.includes(state) ? now.filter((one) => one !== state) : [...now, state]) });
  return h(
    "div",
    { className: "edge-chips", role: "group", "aria-label": label },
    h("button", { type: "button", className: "edge-chip", "aria-pressed": chosen.length === 0, onClick: () => address.change({ state: [] }) }, "all"),
    shown.map((state) =>
      h(
        "button",
        { key: state, type: "button", className: "edge-chip", "aria-pressed": chosen.includes(state), onClick: () => toggle(state) },
        children(state),
        h("span", { className: "edge-count" }, (counts[state] ?? 0).toLocaleString()),
      ),
    ),
  );
};
