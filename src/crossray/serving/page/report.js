// The draft, sentence by sentence: point, accept, edit and discard, with the mouse or only the keyboard.
"use strict";
import { strings } from "./strings.js";

const make = (name, className = "", text = "") =>
  Object.assign(document.createElement(name), { className, textContent: text });

export class Draft {
  // `pointed` is called with the number of the sentence whose attention to show, or null; `changed` after each decision.
  constructor(list, answer, pointed, changed) {
    Object.assign(this, { list, pointed, changed });
    const stated = new Map();
    for (const { name, status, words } of answer.observations)
      for (const { sentence } of words) stated.set(sentence, [...(stated.get(sentence) ?? []), { name, status }]);
    this.rows = answer.sentences.map((sentence, number) => ({
      number, sentence, text: sentence.text, state: "open", observations: stated.get(number) ?? [],
    }));
    list.replaceChildren(...this.rows.map((row) => this.#makeRow(row)));
    list.addEventListener("keydown", (event) => this.#key(event));
    if (!this.rows.length) list.append(make("li", "empty soft", strings.noSentence));
  }

  get kept() { return this.rows.filter((row) => row.state !== "discarded").map((row) => row.text); }
  get done() { return this.rows.filter((row) => row.state !== "open").length; }

  acceptAll() {
    for (const row of this.rows) if (row.state === "open") this.#decide(row, "accepted");
  }

  #makeRow(row) {
    const { sentence } = row;
    row.element = make("li", "sentence");
    row.element.tabIndex = row.number ? -1 : 0;
    row.shown = make("p", "words", row.text);
    const facts = make("p", "facts");
    const meter = make("span", "meter");
    meter.title = sentence.calibrated ? strings.confidenceCalibrated : strings.confidencePlain;
    const fill = make("i");
    fill.dataset.tenths = Math.round(sentence.confidence * 10);
    meter.append(fill, make("b", "", strings.confidence(sentence.confidence)), make("span", "unseen", ` ${meter.title}`));
    facts.append(meter);
    if (sentence.doubtful) facts.append(make("span", "mark doubt", strings.doubtful));
    for (const { name, status } of row.observations)
      facts.append(make("span", `mark ${status}`, `${strings.observation(name)}: ${strings.statuses[status]}`));
    if (!row.observations.length) facts.append(make("span", "mark none", strings.noFinding));
    row.said = make("span", "said");
    const actions = make("div", "actions");
    const button = (text, act) => {
      const made = Object.assign(make("button", "quiet", text), { type: "button", tabIndex: -1 });
      made.addEventListener("click", (event) => { event.stopPropagation(); act(); row.element.focus(); });
      actions.append(made);
      return made;
    };
    button(strings.accept, () => this.#decide(row, row.text === sentence.text ? "accepted" : "edited"));
    Object.assign(button(strings.edit, () => {}), { onclick: () => this.#edit(row) });
    row.remover = button(strings.discard, () => this.#decide(row, row.state === "discarded" ? "open" : "discarded"));
    row.element.append(row.shown, facts, row.said, actions);
    row.element.addEventListener("pointerenter", () => this.point(row));
    row.element.addEventListener("focusin", () => this.point(row));
    this.#paint(row);
    return row.element;
  }

  point(row) {
    for (const other of this.rows) {
      other.element.classList.toggle("pointed", other === row);
      other.element.tabIndex = other === row ? 0 : -1;
    }
    this.pointed(row.number);
  }

  #decide(row, state) {
    row.state = state;
    if (state === "open") row.text = row.sentence.text;
    this.#paint(row);
    this.changed();
  }

  #paint(row) {
    row.element.dataset.state = row.state;
    row.shown.textContent = row.text;
    row.said.textContent = strings.states[row.state];
    row.remover.textContent = row.state === "discarded" ? strings.restore : strings.discard;
    row.element.setAttribute("aria-label", `${row.text} ${strings.states[row.state]}. ` +
      `${strings.confidence(row.sentence.confidence)}${row.sentence.doubtful ? `, ${strings.doubtful}` : ""}`);
  }

  #edit(row) {
    if (row.editor) return;
    row.editor = Object.assign(make("textarea", "editor"), { value: row.text, rows: 2, maxLength: 2000 });
    row.editor.setAttribute("aria-label", strings.edit);
    row.shown.replaceWith(row.editor);
    row.editor.focus();
    const end = (save) => {
      if (!row.editor) return;
      const value = row.editor.value.trim();
      const editor = row.editor;
      row.editor = null;
      editor.replaceWith(row.shown);
      if (save && value) {
        row.text = value;
        this.#decide(row, value === row.sentence.text ? "accepted" : "edited");
      } else this.#paint(row);
      row.element.focus();
    };
    row.editor.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") end(false);
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); end(true); }
    });
    row.editor.addEventListener("blur", () => end(true));
  }

  #key(event) {
    const row = this.rows.find(({ element }) => element === event.target);
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const go = (step) => this.rows[row.number + step]?.element.focus();
    const keys = {
      ArrowDown: () => go(1), ArrowUp: () => go(-1), j: () => go(1), k: () => go(-1),
      a: () => { this.#decide(row, row.text === row.sentence.text ? "accepted" : "edited"); go(1); },
      x: () => this.#decide(row, row.state === "discarded" ? "open" : "discarded"),
      e: () => this.#edit(row), Enter: () => this.#edit(row),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
}
