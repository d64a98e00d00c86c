// A log of pushes and clicks while the page is open.
import { onClick, onPush } from "./web-push/client.js";
import { byId, element, icon, time } from "./dom.js";

const MOST = 50;

/** @param {"push" | "click"} kind @param {string} title @param {string} body @param {number} at */
function add(kind, title, body, at) {
  const text = element("div", {}, element("strong", {}, title), " ", element("span", {}, body));
  const entry = element("li", { dataset: { kind } }, icon(kind === "push" ? "i-bell" : "i-click"), text, " ", time(at));
  byId("log").prepend(entry);
  while (byId("log").children.length > MOST) byId("log").lastElementChild.remove();
  show();
}

function show() {
  const isEmpty = byId("log").children.length === 0;
  byId("log-empty").hidden = !isEmpty;
  byId("log-clear").hidden = isEmpty;
}

onPush(({ title, options, at }) => add("push", title, options.body ?? "", at));
onClick(({ action, url, at }) => add("click", action ? `Button ${action}` : "Clicked", url ?? "", at));

byId("log-clear").addEventListener("click", () => {
  byId("log").replaceChildren();
  show();
  byId("log-heading").tabIndex = -1;
  byId("log-heading").focus();
});
show();
