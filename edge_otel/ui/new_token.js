// A token that was just made, shown this once, and what to do with it at the site.
import { Buttons, Dialog } from "./dialog.js";
import { useLive } from "./live.js";
import { h, useState } from "./react.js";

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

const isGlob = (worker) => /[*?[]/.test(worker);

// The token does not get into a shell's history, and no command that follows it into its file.
const tokenInto = (file) => ["The token's file: after this line paste the token, then press Enter and Ctrl-D.", `(umask 077 && cat > ${file})`];

// What to do, and what to copy for it, by the way in which the worker is run. As docs/add-a-worker.md has it.
const ways = ({ worker, queues }, url) => {
  const name = isGlob(worker) ? "NAME" : worker;
  const served = queues ? ` --queues ${quoted(queues.join(","))}` : "";
  return {
    "edge-worker": [
      tokenInto("token"),
      [
        "With the daemon installed as for systemd:",
        `/opt/edge-worker/bin/edge-worker start --server ${quoted(url)} --token-file token --name ${quoted(name)} \\
   ${served} --concurrency 4 --state-dir /var/lib/edge-worker --task-python /opt/airflow/bin/python`,
      ],
    ],
    "airflow edge worker": [
      tokenInto('"$HOME/edge-token"'),
      [
        "Then:",
        `export AIRFLOW__EDGE__API_URL=${quoted(url)}
export AIRFLOW__EDGE__TOKEN_FILE="$HOME/edge-token"
airflow edge worker --edge-hostname ${quoted(name)}${served} --concurrency 4`,
      ],
    ],
    systemd: [
      [
        "As root, in a checkout of edge-otel:",
        `useradd --system --create-home edge-worker
python3 -m venv /opt/edge-worker
/opt/edge-worker/bin/pip install .
install -d /etc/edge-worker
install -m 644 worker/systemd/worker.toml /etc/edge-worker/worker.toml
install -m 644 worker/systemd/edge-worker.service /etc/systemd/system/`,
      ],
      tokenInto("/etc/edge-worker/token"),
      [
        "In /etc/edge-worker/worker.toml set these, and task_python where Airflow is not in /opt/airflow:",
        `server = ${JSON.stringify(url)}
name = ${JSON.stringify(name)}${queues ? `\nqueues = [${queues.map((queue) => JSON.stringify(queue)).join(", ")}]` : ""}`,
      ],
      [
        "Then:",
        `systemctl enable --now edge-worker
systemctl status edge-worker`,
      ],
    ],
  };
};

export const NewToken = ({ made, opener, onClose }) => {
  const { context } = useLive();
  const [copied, setCopied] = useState("");
  const url = context.api_url || new URL("edge_worker", document.baseURI).href;
  const copy = async (what, text) => {
    // The same text again would be read to nobody.
    setCopied("");
    try {
      await navigator.clipboard.writeText(text);
      setCopied(`${what} copied.`);
    } catch {
      // Browsers give pages without HTTPS no clipboard.
      setCopied("The browser does not allow it: select the text and copy it.");
    }
  };
  const button = (what, text) => h("button", { type: "button", className: "edge-button", "aria-label": `Copy ${what}`, onClick: () => copy(what, text) }, "Copy");
  const step = (what, words, text) =>
    h("li", { key: what }, words, h("div", { className: "edge-command" }, h("pre", { tabIndex: 0, "aria-label": what }, text), button(what, text)));
  return h(
    Dialog,
    // It is not shown again: a key pressed by chance does not close it.
    { title: `Token for ${made.row.worker}`, opener, onClose, onEscape: () => {} },
    h("p", { className: "edge-about" }, "This is the only time that it is shown. Give it to the worker in a file that only its user can read, never on a command line."),
    h("div", { className: "edge-secret" }, h("input", { readOnly: true, value: made.token, "aria-label": "Token", autoFocus: true, onFocus: (event) => event.target.select() }), button("the token", made.token)),
    h("h3", null, "At the site"),
    h("p", null, "What it needs there is in docs/add-a-worker.md; what follows is of that page, for this token."),
    Object.entries(ways(made.row, url)).map(([way, steps], index) =>
      h("details", { key: way, open: index === 0 }, h("summary", null, way), h("ol", null, steps.map(([words, text], at) => step(`step ${at + 1} for ${way}`, words, text)))),
    ),
    h("p", { role: "status", className: "edge-muted" }, copied),
    h(Buttons, null, h("button", { type: "button", className: "edge-button edge-primary", onClick: onClose }, "I have stored it")),
  );
};
