// The dialog of an action: what it needs, a trial that changes nothing, then the deed and what became of it.
import { post } from "./api.js";
import { Buttons, Dialog } from "./dialog.js";
import { useLive } from "./live.js";
import { h, useEffect, useRef, useState } from "./react.js";
import { count } from "./text.js";

// Workers in one request: the progress of more is seen.
const PORTION = 200;
const SHOWN = 200;

// ``target``: {selection, worker?, text}: of the API, one worker's row where it is one, and whom it names in words.
export const ActionDialog = ({ deed, target, opener, onClose }) => {
  const { ask, context } = useLive();
  const [values, setValues] = useState(() => initial(deed, target));
  const [stage, setStage] = useState(deed.fields.length ? { at: "form" } : { at: "checking" });
  const living = useRef(true);
  const stopper = useRef(null);
  useEffect(() => {
    living.current = true;
    return () => (living.current = false);
  }, []);

  const send = (selection, dryRun, signal) =>
    post("actions", { selection, action: { kind: deed.kind, ...deed.action(values) }, dry_run: dryRun }, context.action_header, signal);

  const check = async () => {
    setStage({ at: "checking" });
    try {
      const outcomes = (await send(target.selection, true)).filter((one) => !target.except?.has(one.worker));
      setStage({ at: "checked", names: outcomes.filter((one) => one.done).map((one) => one.worker), refused: outcomes.filter((one) => !one.done) });
    } catch (failure) {
      setStage({ at: "form", failure: failure.message });
    }
  };
  useEffect(() => {
    if (!deed.fields.length) check();
  }, []);

  const perform = async (names, before = []) => {
    const outcomes = [...before];
    stopper.current = new AbortController();
    for (let start = 0; start < names.length; start += PORTION) {
      setStage({ at: "working", done: outcomes.length, total: names.length + before.length });
      const portion = names.slice(start, start + PORTION);
      try {
        outcomes.push(...(await send({ names: portion }, false, stopper.current.signal)));
      } catch (failure) {
        setStage({ at: "done", outcomes, failure, unknown: failure.lost ? portion : [], left: names.slice(start) });
        ask();
        return;
      }
      ask();
      if (!living.current) return;
    }
    setStage({ at: "done", outcomes });
  };

  const stop = () => stopper.current.abort();
  const removed = deed.kind === "remove" && stage.at === "done" ? stage.outcomes.filter((one) => one.done).map((one) => one.worker) : [];
  const leave = () => onClose(removed);
  // Where a button goes that had the focus, another must have it.
  const close = h(
    "button",
    { type: "button", className: "edge-button", onClick: leave, autoFocus: stage.at !== "form" },
    stage.at === "done" ? "Close" : "Cancel",
  );
  return h(
    Dialog,
    { title: `${deed.text}: ${target.text}`, opener, onClose: leave, onEscape: stage.at === "working" ? stop : undefined },
    h("p", { className: "edge-about" }, deed.about),
    // One element from the beginning on: what changes in it is read aloud.
    h("p", { role: "status" }, told(stage)),
    stage.at === "form" && h(Form, { deed, values, setValues, onSubmit: check, failure: stage.failure, close }),
    stage.at === "checking" && h(Buttons, null, close),
    stage.at === "checked" && h(Checked, { deed, stage, values, back: () => setStage({ at: "form" }), perform, close }),
    stage.at === "working" && h(Progress, { stage, stop }),
    stage.at === "done" && h(Done, { stage, again: () => perform(stage.left, stage.outcomes), close }),
  );
};

const told = ({ at, names, refused, outcomes }) => {
  if (at === "checking") return "Checking what would be done …";
  if (at === "done") return summary(outcomes);
  if (at !== "checked") return "";
  const would = names.length ? `This will be done to ${count(names.length, "worker")}.` : "Nothing would be done.";
  return refused.length ? `${would} ${count(refused.length, "is", "are")} refused:` : would;
};

const initial = (deed, target) =>
  Object.fromEntries(deed.fields.map((field) => [field.name, String((target.worker && field.of?.(target.worker)) ?? "")]));

const Form = ({ deed, values, setValues, onSubmit, failure, close }) =>
  h(
    "form",
    {
      onSubmit: (event) => {
        event.preventDefault();
        onSubmit();
      },
    },
    deed.fields.map((field, index) =>
      h(
        "label",
        { key: field.name, className: "edge-field" },
        h("span", null, field.label, field.hint && h("small", null, ` ${field.hint}`)),
        h("input", {
          type: field.type ?? "text",
          min: field.type === "number" ? 1 : undefined,
          required: field.required,
          maxLength: 1024,
          autoFocus: index === 0,
          value: values[field.name],
          onChange: (event) => setValues({ ...values, [field.name]: event.target.value }),
        }),
      ),
    ),
    failure && h("p", { role: "alert", className: "edge-alert" }, failure),
    h(Buttons, null, close, h("button", { type: "submit", className: "edge-button edge-primary" }, deed.fields.length ? "Continue" : "Check again")),
  );

const Checked = ({ deed, stage, values, back, perform, close }) =>
  h(
    "div",
    null,
    deed.shows && h("p", null, deed.shows(values)),
    h(Outcomes, { outcomes: stage.refused }),
    h(
      Buttons,
      null,
      close,
      deed.fields.length > 0 && h("button", { type: "button", className: "edge-button", onClick: back }, "Back"),
      stage.names.length > 0 &&
        h(
          "button",
          { type: "button", autoFocus: !deed.grave, className: `edge-button ${deed.grave ? "edge-grave" : "edge-primary"}`, onClick: () => perform(stage.names) },
          `${deed.text}: ${count(stage.names.length, "worker")}`,
        ),
    ),
  );

const Progress = ({ stage, stop }) =>
  h(
    "div",
    null,
    h("p", null, h("progress", { max: stage.total, value: stage.done, "aria-label": "Progress" }), ` ${stage.done.toLocaleString()} of ${count(stage.total, "worker")}`),
    h(Buttons, null, h("button", { type: "button", className: "edge-button", autoFocus: true, onClick: stop }, "Stop")),
  );

const Done = ({ stage, again, close }) => {
  const refused = stage.outcomes.filter((one) => !one.done);
  return h(
    "div",
    null,
    stage.failure && h("p", { role: "alert", className: "edge-alert" }, aftermath(stage)),
    h(Outcomes, { outcomes: (stage.unknown ?? []).map((worker) => ({ worker, text: "unknown: it may have been done" })) }),
    h(Outcomes, { outcomes: refused.length ? refused : stage.outcomes.length === 1 ? stage.outcomes : [] }),
    h(Buttons, null, close, stage.left && h("button", { type: "button", className: "edge-button edge-primary", onClick: again }, "Do the rest")),
  );
};

const aftermath = ({ failure, unknown, left }) => {
  const rest = left.length - unknown.length;
  const lost = unknown.length ? ` The answer was lost: it may have been done to ${count(unknown.length, "worker")}. Look at ${unknown.length === 1 ? "it" : "them"}; doing the rest does no harm where it was done.` : "";
  return `${failure.message}${lost}${rest ? ` ${count(rest, "worker")} not done.` : ""}`;
};

const summary = (outcomes) => {
  const done = outcomes.filter((one) => one.done).length;
  const refused = outcomes.length - done;
  return `${count(done, "worker")} done${refused ? `, ${refused.toLocaleString()} refused` : ""}.`;
};

const Outcomes = ({ outcomes }) =>
  outcomes.length > 0 &&
  h(
    "ul",
    { className: "edge-outcomes", tabIndex: 0, "aria-label": "Worker by worker" },
    outcomes.slice(0, SHOWN).map((one) => h("li", { key: one.worker }, h("b", null, one.worker), " ", one.text)),
    outcomes.length > SHOWN && h("li", { key: " more" }, `… and ${count(outcomes.length - SHOWN, "more", "more")}`),
  );
