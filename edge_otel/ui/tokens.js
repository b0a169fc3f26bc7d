// The tokens of workers: who has one, until when, and whether it is used.
import { StateChips, TextFilter, useAddress } from "./address.js";
import { query } from "./api.js";
import { Badge } from "./badge.js";
import { useLive, usePolled } from "./live.js";
import { Fragment, h, useState } from "./react.js";
import { Cell, Loading, Moment, pageOf, Pager, Table } from "./table.js";
import { queuesOf } from "./text.js";
import { TokenDialog } from "./token_dialog.js";

const TOKEN_STATES = ["valid", "expired", "revoked"];
const COLUMNS = ["Worker", "State", "Queues", "Created", "Expires", "Last used", "Id"].map((label) => ({ label }));
const NONE = "No token matches. A worker needs one to register.";

export const Tokens = () => {
  const { context } = useLive();
  const address = useAddress();
  const path = `tokens${query({ search: address.text("search"), state: address.all("state"), ...pageOf(address) })}`;
  const answer = usePolled(path);
  const [asking, setAsking] = useState(null);
  const page = answer.data;
  const columns = context.makes_tokens ? [...COLUMNS, { label: "Actions", hidden: true }] : COLUMNS;
  return h(
    Fragment,
    null,
    h(
      "form",
      { className: "edge-filters", role: "search", "aria-label": "Filter tokens", onSubmit: (event) => event.preventDefault() },
      h(TextFilter, { name: "search", most: 64, label: "Worker or id", address }),
      context.makes_tokens && h("button", { type: "button", className: "edge-button edge-primary edge-aside", onClick: (event) => setAsking({ what: "create", opener: event.currentTarget }) }, "New token …"),
      h(StateChips, { address, states: TOKEN_STATES, counts: page?.states ?? {}, label: "States" }, (state) => h(Badge, { state })),
    ),
    page?.total > 0 &&
      h(
        Table,
        { caption: "Worker tokens", columns, busy: answer.path !== path },
        page.tokens.map((row) => h(Line, { key: row.id, row, now: page.at, begin: (what, opener) => setAsking({ what, row, opener }), may: context.makes_tokens })),
      ),
    page?.total === 0 && h("p", { className: "edge-empty" }, NONE),
    page && h(Pager, { address, total: page.total, noun: "token", none: NONE, settled: answer.path === path }),
    answer.refusal && h("p", { role: "alert", className: "edge-alert" }, answer.refusal.message),
    !page && !answer.refusal && h(Loading),
    asking && h(TokenDialog, { ...asking, onClose: () => setAsking(null) }),
  );
};

const Line = ({ row, now, begin, may }) =>
  h(
    "tr",
    { role: "row" },
    h("th", { role: "rowheader", scope: "row", className: "edge-name" }, row.worker, row.team && h("span", { className: "edge-muted" }, `team ${row.team}`)),
    h(Cell, { label: "State" }, h(Badge, { state: row.state }), row.rotated_to && h("span", { className: "edge-muted" }, `replaced by ${row.rotated_to}`)),
    h(Cell, { label: "Queues", className: "edge-queues" }, queuesOf(row.queues)),
    h(Cell, { label: "Created" }, h(Moment, { at: row.created_at, now }), row.created_by && h("span", { className: "edge-muted" }, `by ${row.created_by}`)),
    h(Cell, { label: "Expires" }, h(Moment, { at: row.expires_at, now })),
    h(Cell, { label: "Last used" }, row.last_used_at ? h(Moment, { at: row.last_used_at, now }) : "never"),
    h(Cell, { label: "Id" }, h("code", null, row.id)),
    may &&
      h(
        Cell,
        { className: "edge-row-buttons" },
        row.state === "valid" && [
          h("button", { key: "rotate", type: "button", className: "edge-button", "aria-label": `Rotate ${row.id}`, onClick: (event) => begin("rotate", event.currentTarget) }, "Rotate …"),
          h("button", { key: "revoke", type: "button", className: "edge-button", "aria-label": `Revoke ${row.id}`, onClick: (event) => begin("revoke", event.currentTarget) }, "Revoke …"),
        ],
      ),
  );
