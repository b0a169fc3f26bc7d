// The focus of what goes while it has it: a button that was pressed, a link in a row.
import { h, useEffect, useRef } from "./react.js";

const NEIGHBOURS = "table, form, dialog, .edge-picked";

// What was around it gets the focus then, or else the heading. The browser would leave it to nothing, and who has no
// mouse would begin at the top of the window.
export const FocusKept = ({ className, children }) => {
  const box = useRef(null);
  useEffect(() => {
    const view = box.current;
    let had = null;
    let around = [];
    const note = ({ target }) => {
      had = target;
      around = [];
      for (let one = target.closest(NEIGHBOURS); one; one = one.parentElement.closest(NEIGHBOURS)) around.push(one);
    };
    const changes = new MutationObserver(() => {
      if (!had || had.isConnected || !view.isConnected || document.activeElement !== document.body) return;
      had = null;
      const next = around.find((one) => one.isConnected) ?? document.querySelector(".edge-page h1");
      next.tabIndex = -1;
      next.focus({ preventScroll: true });
    });
    view.addEventListener("focusin", note);
    changes.observe(view, { childList: true, subtree: true });
    return () => changes.disconnect();
  }, []);
  return h("div", { ref: box, className }, children);
};
