// The latest requests, refused ones with their reason.

import { make, table } from "./dom.js";
import { clock, count, latency, usd, words } from "./format.js";

const COLUMNS = [["Time"], ["Key"], ["Model"], ["Outcome"], ["Tokens", "number"], ["Cost", "number"], ["Took", "number"], ["", "wide"]];
const KINDS = { success: "good", refused: "stop", error: "near", cut: "near", cancelled: "near", unconfirmed: "near" };

function row(call) {
  const outcome = call.status === "refused" ? `refused ${call.http_status}` : call.status === "success" ? "ok" : `${words(call.status)} ${call.http_status}`;
  return [
    make("time", { datetime: call.timestamp, title: call.timestamp }, clock(call.timestamp)),
    call.virtual_key_name || make("span", { class: "quiet" }, "none"),
    make("span", { title: call.provider }, call.model || call.path),
    make("span", { class: `word ${KINDS[call.status] || ""}` }, outcome + (call.count > 1 ? ` ×${count(call.count)}` : "")),
    call.total_tokens ? `${count(call.prompt_tokens)} → ${count(call.completion_tokens)}` : "",
    call.cost === null ? make("span", { class: "quiet" }, "not priced") : call.status === "refused" ? "" : usd(call.cost),
    latency(call.latency),
    call.status === "refused" ? make("span", { class: "quiet" }, `${words(call.refusal_type)}: ${call.message}`) : "",
  ];
}

export function callsView(calls, gateway) {
  if (calls.length === 0) {
    const address = gateway || "http://127.0.0.1:8080";
    return make("div", { class: "notice" },
      make("p", {}, "No request has come yet. Run any tool under its caps: ", make("code", {}, "tollgate exec -- claude")),
      make("p", {}, "Or give an SDK this base URL and a virtual key: ", make("code", {}, `${address}/openai/v1`)));
  }
  return table("Latest requests", COLUMNS, calls.map(row));
}
