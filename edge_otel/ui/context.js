// Who looks, what they may do, and what the server is. Rights change, and an upgrade changes the server's version: it is
// asked for again while somebody looks.
import { get } from "./api.js";
import { useEffect, useState } from "./react.js";

// Milliseconds.
const RETRY = 3000;
const AGAIN = 60_000;

// The promise of the newest answer; a refusal is not kept.
let context = null;
let askedAt = 0;
const ask = () => {
  const asked = get("context");
  askedAt = performance.now();
  asked.catch(() => {
    if (context === asked) context = null;
  });
  return (context = asked);
};

// At once, while Airflow still draws its own parts.
ask();

// What is told of the user, or the refusal; not before ``styled``.
export const useContextOfUser = (paused, styled) => {
  const [known, setKnown] = useState({});
  useEffect(() => {
    let timer = null;
    let newest = null;
    const look = async (asked) => {
      clearTimeout(timer);
      newest = asked;
      let soon = false;
      try {
        const [told] = await Promise.all([asked, styled]);
        if (newest !== asked) return;
        setKnown({ told });
      } catch (refusal) {
        if (newest !== asked) return;
        // What was known stays: a view that goes takes with it what somebody types.
        setKnown((before) => (before.told ? before : { refusal }));
        if (refusal.status === 403) return;
        soon = refusal.status !== 401;
      }
      timer = setTimeout(again, soon ? RETRY : askedAt + AGAIN - performance.now());
    };
    const again = () => {
      if (!paused && document.visibilityState === "visible") look(ask());
    };
    look(context ?? ask());
    document.addEventListener("visibilitychange", again);
    return () => {
      newest = null;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", again);
    };
  }, [paused, styled]);
  return known;
};
