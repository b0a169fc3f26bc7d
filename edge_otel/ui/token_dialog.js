// The dialogs that make, replace and end a token.
import { post } from "./api.js";
import { Buttons, Dialog } from "./dialog.js";
import { useLive } from "./live.js";
import { NewToken } from "./new_token.js";
import { h, useRef, useState } from "./react.js";

// By what is asked: title, what it means, fields, and the request.
const FORMS = {
  create: {
    title: () => "New token",
    about: "It opens the Edge API for one worker, or for a group by a glob such as site7-*, and nothing else.",
    fields: [
      { name: "worker", label: "Worker, or glob", required: true, maxLength: 64 },
      { name: "queues", label: "Queues, separated by commas", hint: "empty: all" },
      { name: "team", label: "Team", hint: "empty: none", maxLength: 50 },
      { name: "days", label: "Valid for days", type: "number", required: true, first: "365" },
    ],
    path: () => "tokens",
    body: ({ worker, queues, team, days }) => ({ worker: worker.trim(), queues: listed(queues), team: team.trim() || null, expires_days: Number(days) }),
    button: "Create",
    lost: "a token may have been made. Look for it in the list, and revoke it: nobody can see it again.",
  },
  rotate: {
    title: (row) => `Rotate the token of ${row.worker}`,
    about: "A new one takes over; the old one stays valid for a while, so that the worker can be given the new one.",
    fields: [{ name: "hours", label: "Hours for which both are valid", type: "number", required: true, first: "24" }],
    path: (row) => `tokens/${encodeURIComponent(row.id)}/rotate`,
    body: ({ hours }) => ({ overlap_hours: Number(hours) }),
    button: "Rotate",
    lost: "a token may have been made. Look for it in the list, and revoke it: nobody can see it again.",
  },
  revoke: {
    title: (row) => `Revoke the token of ${row.worker}`,
    about: "It is worthless at once: its worker is refused until it has another.",
    fields: [],
    path: (row) => `tokens/${encodeURIComponent(row.id)}/revoke`,
    body: () => ({}),
    button: "Revoke",
    lost: "it may have been revoked. Look at the list.",
    grave: true,
  },
};

const listed = (text) => {
  const names = text.split(",").map((name) => name.trim()).filter(Boolean);
  return names.length ? names : null;
};

export const TokenDialog = ({ what, row, opener, onClose }) => {
  const { ask, context, say } = useLive();
  const form = FORMS[what];
  const [values, setValues] = useState(() => Object.fromEntries(form.fields.map((field) => [field.name, field.first ?? ""])));
  const [made, setMade] = useState(null);
  const [failure, setFailure] = useState("");
  const [busy, setBusy] = useState(false);
  const sent = useRef(null);
  if (made) return h(NewToken, { made, opener, onClose });

  const send = async (event) => {
    event.preventDefault();
    if (sent.current) return;
    sent.current = new AbortController();
    setFailure("");
    setBusy(true);
    try {
      const answer = await post(form.path(row), form.body(values), context.action_header, sent.current.signal);
      ask();
      say(what === "revoke" ? "The token is revoked." : "The token is made.");
      if (what === "revoke") onClose();
      else setMade(answer);
    } catch (refusal) {
      ask();
      setFailure(refusal.lost ? `${refusal.message} The answer was lost: ${form.lost}` : refusal.message);
    }
    sent.current = null;
    setBusy(false);
  };

  const stop = () => sent.current?.abort();

  return h(
    Dialog,
    { title: form.title(row), opener, onClose, onEscape: busy ? stop : undefined },
    h("p", { className: "edge-about" }, form.about),
    h(
      "form",
      { onSubmit: send },
      form.fields.map((field) =>
        h(
          "label",
          { key: field.name, className: "edge-field" },
          h("span", null, field.label, field.hint && h("small", null, ` ${field.hint}`)),
          h("input", {
            type: field.type ?? "text",
            min: field.type === "number" ? 0 : undefined,
            step: field.type === "number" ? "any" : undefined,
            required: field.required,
            maxLength: field.maxLength,
            autoComplete: "off",
            value: values[field.name],
            onChange: (event) => setValues({ ...values, [field.name]: event.target.value }),
          }),
        ),
      ),
      failure && h("p", { role: "alert", className: "edge-alert" }, failure),
      h(Buttons, null, h("button", { type: "button", className: "edge-button", onClick: busy ? stop : onClose }, busy ? "Stop" : "Cancel"), h("button", { type: "submit", className: `edge-button ${form.grave ? "edge-grave" : "edge-primary"}`, disabled: busy }, form.button)),
    ),
  );
};
