// Why messages of a broadcast failed: samples, read when they are asked for.
import { element, time } from "../dom.js";
import { find } from "./audience.js";
import { authorized } from "./session.js";
import { PUSH_SERVICES, counted, failure as words, moment, word } from "./words.js";

/** Makes the part of a broadcast's entry. @param {string} id */
export function failureList(id) {
  const summary = element("summary", {});
  const note = element("p", { className: "hint" }, "Reading…");
  const list = element("ul", { className: "list" });
  const node = element("details", { hidden: true }, summary, element("div", { className: "inside" }, note, list));
  let number = 0;
  let read = -1;
  const load = async () => {
    if (!node.open || read === number) return;
    const reading = number;
    try {
      const { failures = [] } = await authorized("GET", `broadcasts/${id}`);
      note.textContent = failures.length < reading ? `${counted(failures.length, "sample")} of ${reading}, of each reason some.` : "All of them.";
      list.replaceChildren(...failures.map(entry));
      read = reading;
    } catch (error) {
      note.textContent = error.message;
    }
  };
  node.addEventListener("toggle", load);
  return {
    node,
    /** @param {number} count */
    show(count) {
      node.hidden = count === 0;
      number = count;
      summary.textContent = `Why ${counted(count, "message")} failed`;
      load();
    },
  };
}

/** @param {any} failure */
function entry(failure) {
  const { at, pushService, subscription } = failure;
  const who = [word(PUSH_SERVICES, pushService), subscription].filter(Boolean).join(", ");
  const text = element("div", {}, element("strong", {}, words(failure)), " ", element("span", {}, who));
  const node = element("li", {}, text, " ", time(Date.parse(at), moment));
  // It may have been deleted since.
  if (subscription) {
    const show = element("button", { type: "button", className: "small quiet" }, "Show the subscription");
    show.addEventListener("click", () => find("id", subscription));
    node.append(show);
  }
  return node;
}
