// Figures and times as people read them.

/** USD with at least two decimals; small amounts keep enough of them to be seen. */
export function usd(amount) {
  const size = Math.abs(amount);
  const decimals = size === 0 || size >= 1 ? 2 : size >= 0.01 ? 4 : 9;
  return new Intl.NumberFormat("en-US", {
    style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: decimals,
  }).format(amount);
}

export function count(number) {
  return new Intl.NumberFormat("en-US").format(number);
}

/** "14:10", with the day when it is not today. */
export function clock(iso) {
  const at = new Date(iso);
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (at.toDateString() !== new Date().toDateString()) Object.assign(options, { weekday: "short", day: "numeric", month: "short" });
  return at.toLocaleString("en-GB", options);
}

/** "in 23 min", "in 3 h". */
export function until(iso) {
  const seconds = Math.max(0, (new Date(iso) - Date.now()) / 1000);
  if (seconds < 90) return `in ${Math.round(seconds)} s`;
  if (seconds < 5400) return `in ${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `in ${Math.round(seconds / 3600)} h`;
  return `in ${Math.round(seconds / 86400)} days`;
}

export function latency(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

export function words(name) {
  return String(name || "").replaceAll("_", " ");
}
