// Charts of a few figures, drawn by lengths of elements. Each is a list that says the same in words.
import { element } from "../dom.js";
import { number } from "./words.js";

/** A short figure: `1.2K`. */
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

/**
 * Columns side by side, each of parts on top of each other.
 *
 * @param {any} list
 * @param {{label: string, name: string, parts: {kind: string, count: number, word: string}[], words?: string, isPlain?: boolean}[]} columns
 *   A plain one has no figure above it, for want of space.
 */
export function showColumns(list, columns) {
  const total = (/** @type {{parts: {count: number}[]}} */ { parts }) => parts.reduce((sum, { count }) => sum + count, 0);
  const most = Math.max(1, ...columns.map(total));
  list.replaceChildren(
    ...columns.map((column) => {
      const bars = column.parts.map(({ kind, count }) => {
        const bar = element("i", { dataset: { kind } });
        bar.style.flexGrow = String(count);
        // What there is must be seen beside what is large.
        bar.hidden = count === 0;
        return bar;
      });
      const figure = element("b", {}, total(column) && !column.isPlain ? short.format(total(column)) : "");
      const stack = element("span", { className: "stack" }, figure, ...bars);
      stack.style.height = `${(100 * total(column)) / most}%`;
      const words = column.words ?? column.parts.map(({ count, word }) => `${number(count)} ${word}`).join(", ");
      return element(
        "li",
        { title: `${column.name}: ${words}` },
        element("span", { className: "plot", ariaHidden: "true" }, stack),
        element("span", { className: "label", ariaHidden: "true" }, column.label),
        element("span", { className: "spoken" }, `${column.name}: ${words}`),
      );
    }),
  );
}

/**
 * Bars below each other, each with its name and its figure.
 *
 * @param {any} list
 * @param {{name: string, count: number}[]} bars
 */
export function showBars(list, bars) {
  const all = bars.reduce((sum, { count }) => sum + count, 0);
  list.replaceChildren(
    ...bars.map(({ name, count }) => {
      const bar = element("i", {});
      bar.style.width = `${all === 0 ? 0 : (100 * count) / all}%`;
      const share = all === 0 ? "" : ` (${Math.round((100 * count) / all)} %)`;
      return element(
        "li",
        {},
        element("span", {}, name),
        element("span", { className: "track", ariaHidden: "true" }, bar),
        element("b", {}, number(count), element("small", {}, share)),
      );
    }),
  );
}
