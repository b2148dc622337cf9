// The reading page: send a study, watch its draft being generated, review the draft, and export it.
"use strict";
import { Draft } from "./report.js";
import { Refused, door, models, report, take } from "./service.js";
import { strings } from "./strings.js";
import { Viewer } from "./viewer.js";

const part = (id) => document.getElementById(id);
const make = (name, className = "", text = "") =>
  Object.assign(document.createElement(name), { className, textContent: text });

let answer = null, draft = null, viewers = [], shown = null, sending = new AbortController();

for (const element of document.querySelectorAll("[data-text]")) element.textContent = strings[element.dataset.text];

function complain(title, detail = "") {
  part("problem").replaceChildren(make("strong", "", title), document.createTextNode(detail && ` ${detail}`));
  part("problem").hidden = !title;
}

function refused(error) {
  if (!(error instanceof Refused)) console.error(error.name);
  if (error instanceof Refused && error.status === 401) {
    part("door").hidden = false;
    part("arrival").hidden = true;
    part("key").focus();
    if (door.key) complain(strings.failed, error.message);
    door.key = "";
  } else complain(strings.failed, error instanceof Refused && error.message ? error.message : strings.unreachable);
}

async function enter() {
  try {
    const found = await models();
    part("model").replaceChildren(...found.map(({ name, system }) => new Option(`${name} (${system})`, name)));
    part("door").hidden = true;
    part("arrival").hidden = false;
    complain("");
  } catch (error) { refused(error); }
}

part("door").addEventListener("submit", (event) => {
  event.preventDefault();
  door.key = part("key").value.trim();
  part("key").value = "";
  enter();
});

async function send(files) {
  if (!files.length) return;
  leave();
  // Aborted when this study is left: nothing of it may appear afterwards, least of all in place of another patient's.
  const { signal } = sending = new AbortController();
  complain("");
  part("arrival").hidden = true;
  part("study").hidden = part("again").hidden = false;
  part("study").classList.add("busy");
  part("live").hidden = false;
  part("live").textContent = `${strings.reading} …`;
  try {
    const found = await written(files, signal);
    if (!signal.aborted) await show(found, signal);
  } catch (error) {
    if (signal.aborted) return;
    leave();
    refused(error);
  }
}

async function written(files, signal) {
  const say = (text) => { if (!signal.aborted) part("live").textContent = text; };
  for (;;) {
    try {
      return await report(files, part("model").value, say, signal);
    } catch (error) {
      if (signal.aborted || !(error instanceof Refused) || error.status !== 429) throw error;
      say(strings.waiting(error.retry));
      await new Promise((resolve) => { setTimeout(resolve, 1000 * Math.max(1, error.retry)); });
      signal.throwIfAborted();
    }
  }
}

async function show(found, signal) {
  const { attention, views } = found;
  const made = views.map((view, place) =>
    new Viewer(view, attention && { side: attention.side, window: attention.windows[place] }));
  part("views").replaceChildren(...made.map(({ element }) => element));
  part("views").dataset.count = made.length;
  await Promise.all(made.map((viewer, place) => viewer.load(views[place].image)));
  if (signal.aborted) return;
  answer = found;
  viewers = made;
  part("heat").classList.toggle("none", !attention);
  part("heat-on").disabled = !attention;
  if (!attention) part("heat").querySelector("small").textContent = strings.heatNone;
  part("live").hidden = true;
  part("study").classList.remove("busy");
  showInput();
  draft = new Draft(part("sentences"), answer, point, count);
  count();
  showObservations();
  showSimilar();
  part("sentences").querySelector("li")?.focus({ preventScroll: true });
}

function point(number) {
  shown = number;
  const { attention, sentences } = answer;
  const on = attention && part("heat-on").checked && number !== null;
  const maps = on ? sentences[number].attention : [];
  // Weight with the strongest color: the maximum, but at least four times the mean, so that even attention stays pale.
  const most = Math.max(...maps.flat(), on ? 4 / (attention.side ** 2 * maps.length) : 1);
  viewers.forEach((viewer, place) => viewer.show(on ? maps[place] : null, most));
}

part("heat-on").addEventListener("change", () => point(shown));

function count() {
  if (!draft) return; // an open editor saves its text when the study is left
  const all = draft.rows.length;
  part("progress").textContent = strings.progress(draft.done, all);
  part("accept-all").disabled = draft.done === all;
  part("taken").textContent = draft.done < all ? strings.exportOpen(all - draft.done) : "";
}

part("accept-all").addEventListener("click", () => draft.acceptAll());

function showInput() {
  const { checked, flags, remarks } = answer.input;
  const boxes = [];
  if (flags.length) boxes.push(list("flag", strings.inputFlags, flags.map(({ reason, view }) =>
    view === null || view === undefined ? reason : `${strings.view(view)}: ${reason}`)));
  if (remarks.length) boxes.push(list("remark", strings.remarks, remarks));
  if (!checked) boxes.push(make("p", "remark soft", strings.notChecked));
  part("flags").replaceChildren(...boxes);
}

function list(className, title, texts) {
  const box = make("div", className), items = make("ul");
  items.append(...texts.map((text) => make("li", "", text)));
  box.append(make("strong", "", title), items);
  return box;
}

function showObservations() {
  part("observations").replaceChildren(...answer.observations.map(({ name, status, words, confidence }) => {
    const item = make("li");
    item.append(make("span", `mark ${status}`, strings.statuses[status]), make("b", "", ` ${strings.observation(name)} `),
      make("q", "soft", words.map(({ text }) => text).join(" … ")));
    if (confidence !== undefined) item.append(make("span", "soft", ` ${strings.confidence(confidence)}`));
    if (!words.length) item.querySelector("q").remove();
    return item;
  }));
}

function showSimilar() {
  part("similar-box").hidden = !answer.similar.length;
  part("similar").replaceChildren(...answer.similar.map(({ distance, report: text }) => {
    const item = make("li");
    item.append(make("p", "", text || strings.noText), make("small", "soft", strings.distance(distance)));
    return item;
  }));
}

for (const button of document.querySelectorAll("[data-format]")) button.addEventListener("click", async () => {
  const { format } = button.dataset, { id, notice } = answer, { signal } = sending;
  try {
    // Text is exported here, because the service may have deleted the study (--keep 0).
    const blob = format === "text" ? new Blob([`${draft.kept.join(" ")}\n\n${notice}\n`], { type: "text/plain" })
      : await take(id, format, draft.kept);
    if (signal.aborted) return;
    const name = `draft-${id.slice(0, 8)}.${{ text: "txt", fhir: "json", sr: "dcm" }[format]}`;
    const link = Object.assign(make("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    complain("");
    part("taken").textContent = strings.exported(name);
  } catch (error) { if (!signal.aborted) refused(error); }
});

function leave() {
  sending.abort();
  answer = draft = shown = null;
  viewers = [];
  for (const id of ["views", "sentences", "flags", "observations", "similar"]) part(id).replaceChildren();
  for (const id of ["progress", "taken", "live"]) part(id).textContent = "";
  part("study").hidden = part("again").hidden = true;
  part("arrival").hidden = false;
  for (const id of ["files", "folder"]) part(id).value = "";
}

part("again").addEventListener("click", () => { complain(""); leave(); part("choose").focus(); });

for (const [button, input] of [["choose", "files"], ["choose-folder", "folder"]]) {
  part(button).addEventListener("click", () => part(input).click());
  part(input).addEventListener("change", () => send(views(part(input).files)));
}

// Exported folders contain hidden files and a DICOMDIR, which are not views.
const views = (files) => Array.from(files).filter(({ name }) => !name.startsWith(".") && name !== "DICOMDIR");

async function dropped(transfer) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) return views(transfer.files);
  const found = [];
  for (let entry = entries.shift(); entry && found.length < 64; entry = entries.shift()) {
    if (entry.isFile) found.push(await new Promise((resolve, reject) => { entry.file(resolve, reject); }));
    else {
      const reader = entry.createReader();
      entries.push(...await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); }));
    }
  }
  return views(found);
}

addEventListener("dragover", (event) => { event.preventDefault(); part("drop").classList.add("over"); });
addEventListener("dragleave", () => part("drop").classList.remove("over"));
addEventListener("drop", async (event) => {
  event.preventDefault();
  part("drop").classList.remove("over");
  if (part("arrival").hidden) return;
  send(await dropped(event.dataTransfer));
});

enter();
