// Keeps what is shown up to date: each view asks every few seconds while somebody looks, one request at a time.
import { get } from "./api.js";
import { createContext, useCallback, useContext, useEffect, useMemo, useRef, useState } from "./react.js";

const PAUSE = 3000;
// Milliseconds after which a screen reader has noticed that what was said is gone: the same again is new then.
const SILENCE = 100;

// paused; turn(paused); asked: rises when all should ask at once; ask(); say(text): to screen readers, in the
// element that has the ref ``spoken``; failure, failed(failure): of the last request, or null; context: of the user.
const Live = createContext(null);
export const useLive = () => useContext(Live);
export const LiveProvider = Live.Provider;

export const useLiveness = () => {
  const [paused, turn] = useState(false);
  const [asked, setAsked] = useState(0);
  const [failure, failed] = useState(null);
  const [updated, setUpdated] = useState(null);
  const spoken = useRef(null);
  const timer = useRef(null);
  // Past React: nothing that is seen is drawn anew for it.
  const say = useCallback((text) => {
    const put = (words) => spoken.current && (spoken.current.textContent = words);
    clearTimeout(timer.current);
    put("");
    timer.current = setTimeout(() => put(text), SILENCE);
  }, []);
  const ask = useCallback(() => setAsked((before) => before + 1), []);
  return useMemo(
    () => ({ paused, turn, asked, ask, failure, failed, updated, setUpdated, spoken, say }),
    [paused, asked, ask, failure, updated, say],
  );
};

// The newest answer to a path, and the path that it answers. The last answer stays while another is on its way.
export const usePolled = (path) => {
  const { paused, asked, failed, setUpdated } = useLive();
  const [answer, setAnswer] = useState({ data: null, path: null, refusal: null });
  const poll = useRef(() => {});

  useEffect(() => {
    const abort = new AbortController();
    let timer = null;
    let busy = false;
    let again = false;
    const later = () => {
      if (!paused && document.visibilityState === "visible") timer = setTimeout(once, PAUSE);
    };
    const once = async () => {
      clearTimeout(timer);
      if (busy) {
        again = true;
        return;
      }
      busy = true;
      again = false;
      try {
        const data = await get(path, abort.signal);
        if (abort.signal.aborted) return;
        // A row that moves would close its menu.
        if (!document.querySelector(".edge-menu-list:popover-open")) setAnswer({ data, path, refusal: null });
        setUpdated(Date.now());
        failed(null);
      } catch (failure) {
        if (abort.signal.aborted) return;
        if (failure.status === undefined) throw failure;
        if ([403, 404, 422].includes(failure.status)) {
          setAnswer({ data: null, path, refusal: failure });
          failed(null);
        } else {
          // What is seen with a login goes with it.
          if (failure.status === 401) setAnswer({ data: null, path, refusal: null });
          failed(failure);
        }
      }
      busy = false;
      if (again) once();
      else later();
    };
    const seen = () => {
      if (!paused && document.visibilityState === "visible") once();
    };
    poll.current = once;
    document.addEventListener("visibilitychange", seen);
    window.addEventListener("focus", seen);
    once();
    return () => {
      abort.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
      window.removeEventListener("focus", seen);
    };
  }, [path, paused, failed, setUpdated]);

  useEffect(() => {
    if (asked) poll.current();
  }, [asked]);

  return answer;
};
