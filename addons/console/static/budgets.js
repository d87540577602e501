// Budgets: what is used, held and left, and when it opens again.

import { make, table } from "./dom.js";
import { clock, until, usd, words } from "./format.js";

const COLUMNS = [["Budget", "wide"], ["Spent and held"], ["Spent", "number"], ["Held", "number"], ["Limit", "number"], ["State"], ["Resets"]];

function state(budget) {
  const limit = budget.effective_max_limit;
  const share = limit > 0 ? (budget.current_usage + budget.held) / limit : 1;
  if (share >= 1 || budget.remaining <= 0) return ["stop", budget.enforcement === "observe" ? "over, watching only" : "used up"];
  if (share >= 0.8) return ["near", "nearly used up"];
  return ["good", "active"];
}

function meter(budget, kind) {
  const limit = budget.effective_max_limit || 1;
  const part = (amount) => Math.max(0, Math.min(100, (amount / limit) * 100));
  const used = part(budget.current_usage);
  const held = Math.min(part(budget.held), 100 - used);
  const label = `${usd(budget.current_usage)} spent and ${usd(budget.held)} held of ${usd(budget.effective_max_limit)}`;
  return make("svg:svg", { class: `meter ${kind}`, viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": label },
    make("svg:rect", { class: "used", width: used, height: 10 }),
    make("svg:rect", { class: "held", x: used, width: held, height: 10 }));
}

function row(budget) {
  const [kind, word] = state(budget);
  const resets = budget.resets_at
    ? [clock(budget.resets_at), " ", make("span", { class: "quiet" }, `every ${budget.reset_duration}`)]
    : "never (prepaid)";
  return [
    [budget.name, make("div", { class: "quiet" }, `${words(budget.scope)} ${budget.scope_name}`)],
    meter(budget, kind),
    usd(budget.current_usage),
    usd(budget.held),
    usd(budget.effective_max_limit),
    make("span", { class: `word ${kind}` }, word),
    make("span", { title: budget.resets_at ? until(budget.resets_at) : null }, resets),
  ];
}

export function budgetsView({ budgets, total }) {
  if (budgets.length === 0) {
    return make("div", { class: "notice" },
      make("p", {}, "There is no budget yet, so nothing is capped."),
      make("p", {}, "Put one on a virtual key: ", make("code", {}, "tollgate budgets create my-budget 0.50usd/1h --key default")));
  }
  const more = total > budgets.length ? make("p", { class: "quiet" }, `The first ${budgets.length} of ${total}.`) : null;
  const list = table("Budgets", COLUMNS, budgets.map(row));
  return more ? make("div", {}, list, more) : list;
}
