// Modal dialogs and menus, as the browser has them: it keeps the focus in, and Escape closes them.
import { h, useId, useLayoutEffect, useRef, useState } from "./react.js";

// ``opener`` has the focus again afterwards, or where it is gone, the heading. Escape closes it, or does ``onEscape``.
export const Dialog = ({ title, opener, onEscape, onClose, children }) => {
  const box = useRef(null);
  const id = useId();
  useLayoutEffect(() => {
    const dialog = box.current;
    const before = opener ?? document.activeElement;
    dialog.showModal();
    return () => {
      // While it is open, nothing else can have the focus.
      dialog.close();
      (before?.isConnected ? before : document.querySelector(".edge-page h1"))?.focus();
    };
  }, [opener]);
  return h(
    "dialog",
    {
      ref: box,
      className: "edge-dialog",
      "aria-labelledby": id,
      onCancel: (event) => {
        event.preventDefault();
        (onEscape ?? onClose)();
      },
      // A browser may close it without asking at the second Escape.
      onClose: () => {
        if (!onEscape) return onClose();
        box.current.showModal();
        return onEscape();
      },
    },
    h("h2", { id }, title),
    children,
  );
};

export const Buttons = ({ children }) => h("div", { className: "edge-buttons" }, children);

// A button that opens a list of things to do: [{text, pick(button)}].
export const Menu = ({ label, children, items, disabled, className = "edge-button" }) => {
  const [open, setOpen] = useState(false);
  const button = useRef(null);
  const list = useRef(null);
  const id = useId();
  useLayoutEffect(() => {
    if (!open) return;
    const anchor = button.current.getBoundingClientRect();
    const size = list.current.getBoundingClientRect();
    const below = anchor.bottom + size.height + 8 < innerHeight;
    list.current.style.left = `${Math.max(8, Math.min(anchor.right - size.width, innerWidth - size.width - 8))}px`;
    list.current.style.top = `${below ? anchor.bottom + 4 : Math.max(8, anchor.top - size.height - 4)}px`;
    list.current.querySelector("button")?.focus();
  }, [open]);
  const pick = (item) => {
    list.current.hidePopover();
    item.pick(button.current);
  };
  return h(
    "span",
    { className: "edge-menu" },
    h("button", { ref: button, type: "button", className, disabled, "aria-label": label, popoverTarget: id }, children),
    h(
      "div",
      { ref: list, id, popover: "auto", className: "edge-menu-list", onToggle: (event) => setOpen(event.newState === "open") },
      open && items.map((item) => h("button", { key: item.text, type: "button", onClick: () => pick(item) }, item.text)),
    ),
  );
};
