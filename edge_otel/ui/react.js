// React and the router are Airflow's own: the page brings none.
const { React, ReactRouterDOM } = globalThis;

export const h = React.createElement;
export const {
  Component,
  Fragment,
  createContext,
  useCallback,
  useContext,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} = React;
export const { Link, useLocation, useNavigate, useSearchParams } = ReactRouterDOM;
