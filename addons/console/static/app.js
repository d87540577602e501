// The start page: budgets with what is left of them, and the latest requests; looks again every two seconds.

import { get, NotSignedIn, post } from "./api.js";
import { budgetsView } from "./budgets.js";
import { callsView } from "./calls.js";

const PERIOD_MS = 2000;
const at = (id) => document.getElementById(id);
const shown = {};
let lastGood = null;

function show(id, value, view) {
  const text = JSON.stringify(value);
  at(id).setAttribute("aria-busy", "false");
  if (shown[id] === text) return;
  shown[id] = text;
  at(id).replaceChildren(view(value));
}

async function refresh() {
  const [{ budgets, total_count: total }, { logs }] = await Promise.all([get("/api/governance/budgets?limit=100"), get("/api/logs?limit=20")]);
  show("budgets", { budgets, total }, budgetsView);
  show("calls", { logs, config: shown.config }, ({ logs: rows }) => callsView(rows, shown.config?.gateway_url));
  at("sign-in").hidden = true;
  at("content").hidden = false;
  lastGood = Date.now();
}

async function begin() {
  if (!shown.config) {
    shown.config = await get("/api/config");
    if (shown.config.inspector_url) {
      at("inspector").href = shown.config.inspector_url;
      at("inspector").hidden = false;
    }
  }
  await refresh();
}

async function askToSignIn() {
  const { auth_type: how } = await get("/api/session/is-auth-enabled");
  const password = how === "password";
  at("user-field").hidden = !password;
  at("secret-label").textContent = password ? "Password" : "Token";
  at("sign-in-how").textContent = password
    ? "Sign in with the user and password of auth_config."
    : "Open the link that “tollgate admin-token” prints, or paste its token here.";
  at("content").hidden = true;
  at("sign-in").hidden = false;
}

at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const secret = form.get("secret");
  const password = !at("user-field").hidden;
  try {
    await post("/api/session/login", password ? { username: form.get("username"), password: secret } : { token: secret });
    at("sign-in-error").textContent = "";
    event.target.reset();
    await look();
  } catch (error) {
    at("sign-in-error").textContent = error.message;
  }
});

async function look() {
  try {
    await begin();
    at("freshness").textContent = "live";
  } catch (error) {
    if (error instanceof NotSignedIn) {
      at("freshness").textContent = "";
      if (at("sign-in").hidden) await askToSignIn().catch(() => {});
    } else {
      const age = lastGood ? `last figures ${Math.round((Date.now() - lastGood) / 1000)} s ago` : "no figures yet";
      at("freshness").textContent = `No answer from the gateway; ${age}.`;
    }
  }
}

async function loop() {
  if (!document.hidden) await look();
  setTimeout(loop, PERIOD_MS);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
loop();
