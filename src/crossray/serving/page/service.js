// Requests to the service. The key is stored only in the memory and session storage of this tab.
"use strict";

export class Refused extends Error {
  constructor(status, detail, more = {}) {
    super(detail);
    this.status = status;
    this.retry = more.retry ?? 0;
    this.flags = more.flags ?? [];
  }
}

const stored = "crossray-key";

export const door = {
  get key() { return sessionStorage.getItem(stored) ?? ""; },
  set key(value) { value ? sessionStorage.setItem(stored, value) : sessionStorage.removeItem(stored); },
};

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (door.key) headers.Authorization = `Bearer ${door.key}`;
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  let detail = response.statusText, more = {};
  try { ({ detail, ...more } = await response.json()); } catch { /* not JSON; the status is enough */ }
  throw new Refused(response.status, detail, { ...more, retry: Number(response.headers.get("Retry-After")) || 0 });
}

export const models = async () => (await (await ask("v1/models")).json()).models;

// Sends a study; `words` is called with the text so far. Resolves to the response; rejects once `signal` is aborted.
export async function report(files, model, words, signal) {
  const form = new FormData();
  files.forEach((file, place) => form.append("images", file, `image${place}`));
  const query = new URLSearchParams({ include: "attention,views", model });
  const headers = { Accept: "text/event-stream" };
  const response = await ask(`v1/reports?${query}`, { method: "POST", body: form, headers, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused(0, "");
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(event);
      const content = JSON.parse(data);
      if (name === "words") words(content.text);
      if (name === "report") return content;
      if (name === "problem") throw new Refused(content.status, content.detail, content);
    }
  }
}

export async function take(study, format, sentences) {
  const response = await ask(`v1/reports/${study}/export?format=${format}`, {
    method: "POST", body: JSON.stringify({ sentences }), headers: { "Content-Type": "application/json" },
  });
  return response.blob();
}
