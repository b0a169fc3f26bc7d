// What all tables share: headers that sort, cells that become cards on a phone, pages.
import { useLive } from "./live.js";
import { h, useEffect } from "./react.js";
import { clock, count, duration, secondsBetween } from "./text.js";

const SIZES = [20, 50, 100, 500];

// columns: [{label, sort?, hidden?, className?}]; on a narrow screen each cell shows its column's label.
export const Table = ({ caption, columns, address, head, children, busy }) =>
  h(
    "table",
    { className: "edge-table", role: "table", "aria-busy": busy || undefined },
    h("caption", { className: "edge-unseen" }, caption),
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        head && h("th", { role: "columnheader", scope: "col", className: "edge-pick" }, head),
        columns.map((column) => h(Header, { key: column.label, column, address })),
      ),
    ),
    h("tbody", { role: "rowgroup" }, children),
  );

const Header = ({ column, address }) => {
  const common = { role: "columnheader", scope: "col", className: column.className };
  if (!column.sort) return h("th", common, column.hidden ? h("span", { className: "edge-unseen" }, column.label) : column.label);
  const [sort, descending] = sorting(address);
  const mine = sort === column.sort;
  return h(
    "th",
    { ...common, "aria-sort": mine ? (descending ? "descending" : "ascending") : undefined },
    h(
      "button",
      { type: "button", className: "edge-sort", onClick: () => address.change(mine ? { descending: descending ? "" : "true" } : { sort: column.sort, descending: column.first === "most" ? "true" : "" }) },
      column.label,
      h("span", { "aria-hidden": true, className: "edge-arrow" }, mine ? (descending ? "↓" : "↑") : "↕"),
    ),
  );
};

export const sorting = (address) => [address.text("sort") || "name", address.text("descending") === "true"];

// Cards have no headers to sort by.
export const SortChoice = ({ columns, address }) => {
  const [sort, descending] = sorting(address);
  return h(
    "label",
    { className: "edge-field edge-narrow" },
    h("span", null, "Sort by"),
    h(
      "select",
      { value: `${sort} ${descending}`, onChange: (event) => change(address, event.target.value) },
      columns
        .filter((column) => column.sort)
        .flatMap((column) => [
          h("option", { key: `${column.sort} up`, value: `${column.sort} false` }, `${column.label} ↑`),
          h("option", { key: `${column.sort} down`, value: `${column.sort} true` }, `${column.label} ↓`),
        ]),
    ),
  );
};

const change = (address, value) => {
  const [sort, descending] = value.split(" ");
  address.change({ sort, descending: descending === "true" ? "true" : "" });
};

export const Cell = ({ label, className, children }) => h("td", { role: "cell", className, "data-label": label }, children);

// Until there is something to show, or why there is not.
export const Loading = () => !useLive().failure && h("p", { className: "edge-muted" }, "Loading …");

// ``settled``: whether the total is of this address; ``none``: what is said where it is 0.
export const Pager = ({ address, total, noun, none, settled }) => {
  const { say } = useLive();
  const offset = address.number("offset");
  const { limit } = pageOf(address);
  const to = Math.min(total, offset + limit);
  const last = Math.max(0, Math.ceil(total / limit) - 1) * limit;
  useEffect(() => {
    // What was there is gone, or somebody typed the address.
    if (settled && offset > last) address.change({ offset: String(last) }, { replace: true });
  }, [settled, offset, last, address]);
  useEffect(() => {
    // Not at each refresh: nobody asked for that.
    if (settled && offset <= last) say(total ? `${count(total, noun)}${total > limit ? `, ${offset + 1} to ${to}` : ""}` : none);
  }, [settled]);
  const turn = (by) => address.change({ offset: String(Math.max(0, offset + by)) });
  return h(
    "nav",
    { className: "edge-pager", "aria-label": "Pages" },
    h("span", null, total ? `${(offset + 1).toLocaleString()} – ${to.toLocaleString()} of ${count(total, noun)}` : `no ${noun}`),
    h("button", { type: "button", className: "edge-button", disabled: offset === 0, onClick: () => turn(-limit) }, "Previous"),
    h("button", { type: "button", className: "edge-button", disabled: to >= total, onClick: () => turn(limit) }, "Next"),
    h(
      "label",
      { className: "edge-inline" },
      "Per page ",
      h(
        "select",
        { value: limit, onChange: (event) => address.change({ limit: event.target.value }) },
        [...new Set([...SIZES, limit])].sort((a, b) => a - b).map((size) => h("option", { key: size, value: size }, size)),
      ),
    ),
  );
};

// A size that the address gives, as far as the server allows it.
export const pageOf = (address) => ({ offset: address.number("offset"), limit: Math.min(500, Math.max(1, address.number("limit"))) });

export const Moment = ({ at, now, ago = true }) =>
  at === null ? "–" : h("time", { dateTime: at, title: clock(at) }, ago ? agoOf(secondsBetween(at, now)) : clock(at));

const agoOf = (seconds) => (seconds < 0 ? `in ${duration(-seconds)}` : `${duration(seconds)} ago`);
