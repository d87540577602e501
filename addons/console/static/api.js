// The only caller of fetch.

export class NotSignedIn extends Error {}

export async function get(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, credentials: "same-origin" });
  return read(answer);
}

export async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST", credentials: "same-origin", body: JSON.stringify(body), headers: { "content-type": "application/json" },
  });
  return read(answer);
}

async function read(answer) {
  const value = await answer.json().catch(() => null);
  if (answer.ok) return value;
  const message = value?.error?.message || `the console answered ${answer.status}`;
  throw answer.status === 401 ? new NotSignedIn(message) : new Error(message);
}
