// One view on a canvas, with window and level, zoom and inversion, and an overlay of where the model looked.
"use strict";
import { strings } from "./strings.js";

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class Viewer {
  constructor(view, attention) {
    this.attention = attention;           // { side, window: [top, left, bottom, right] } or null
    this.weights = null;
    this.element = document.createElement("figure");
    this.element.className = "view";
    const name = `${strings.view(view.number)}, ${strings.positions[view.position] ?? view.position}`;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${name}. ${strings.canvasHelp}`);
    const caption = document.createElement("figcaption");
    caption.textContent = name;
    this.controls = this.#makeControls(name);
    this.element.append(caption, this.canvas, this.controls);
    this.reset(false);
    this.#listen();
  }

  async load(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    this.width = image.naturalWidth;
    this.height = image.naturalHeight;
    this.canvas.width = this.width;
    this.canvas.height = this.height;
    this.canvas.style.aspectRatio = `${this.width} / ${this.height}`;
    this.plain = Object.assign(document.createElement("canvas"), { width: this.width, height: this.height });
    const context = this.plain.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    this.source = context.getImageData(0, 0, this.width, this.height);
    this.draw();
  }

  // `weights`: attention of the current sentence in row-major order, or null; `most`: weight with the strongest color.
  show(weights, most) {
    this.weights = weights;
    this.most = most;
    this.draw();
  }

  reset(draw = true) {
    Object.assign(this, { window: 256, level: 128, zoom: 1, x: 0, y: 0, inverted: false });
    if (draw) this.draw();
  }

  draw() {
    if (!this.source) return;
    this.#paint();
    this.#keepInside();
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.width, this.height);
    context.setTransform(this.zoom, 0, 0, this.zoom, this.x, this.y);
    context.imageSmoothingEnabled = true;
    context.drawImage(this.plain, 0, 0);
    if (this.weights && this.attention) this.#paintHeat(context);
    this.#say();
  }

  // Applies the window by a lookup table of 256 gray levels.
  #paint() {
    const state = `${this.window} ${this.level} ${this.inverted}`;
    if (state === this.painted) return;
    this.painted = state;
    const low = this.level - this.window / 2;
    const table = Uint8ClampedArray.from({ length: 256 }, (_, grey) => {
      const value = ((grey - low) / this.window) * 255;
      return this.inverted ? 255 - value : value;
    });
    const shown = new ImageData(this.width, this.height);
    for (let place = 0; place < shown.data.length; place += 4) {
      shown.data[place] = shown.data[place + 1] = shown.data[place + 2] = table[this.source.data[place]];
      shown.data[place + 3] = 255;
    }
    this.plain.getContext("2d").putImageData(shown, 0, 0);
  }

  #paintHeat(context) {
    const { side, window: [top, left, bottom, right] } = this.attention;
    const cells = Object.assign(document.createElement("canvas"), { width: side, height: side });
    const pixels = new ImageData(side, side);
    this.weights.forEach((weight, place) => {
      const strength = clamp(weight / this.most, 0, 1);
      pixels.data.set([255, 150 - 90 * strength, 20, 200 * strength ** 2], 4 * place);
    });
    cells.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(cells, left * this.width, top * this.height,
      (right - left) * this.width, (bottom - top) * this.height);
  }

  #keepInside() {
    this.x = clamp(this.x, this.width * (1 - this.zoom), 0);
    this.y = clamp(this.y, this.height * (1 - this.zoom), 0);
  }

  zoomBy(factor, x = this.width / 2, y = this.height / 2) {
    const next = clamp(this.zoom * factor, 1, 8);
    this.x = x - ((x - this.x) * next) / this.zoom;
    this.y = y - ((y - this.y) * next) / this.zoom;
    this.zoom = next;
    this.draw();
  }

  change(window, level) {
    this.window = clamp(this.window + window, 8, 512);
    this.level = clamp(this.level + level, 0, 255);
    this.draw();
  }

  #makeControls(name) {
    const box = document.createElement("div");
    box.className = "controls";
    const slider = (text, low, high, set) => {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "range", min: low, max: high });
      input.setAttribute("aria-label", `${text}, ${name}`);
      input.addEventListener("input", () => { set(Number(input.value)); this.draw(); });
      label.append(Object.assign(document.createElement("span"), { textContent: text }), input);
      box.append(label);
      return input;
    };
    this.windowSlider = slider(strings.window, 8, 512, (value) => { this.window = value; });
    this.levelSlider = slider(strings.level, 0, 255, (value) => { this.level = value; });
    const button = (text, label, act) => {
      const made = Object.assign(document.createElement("button"), { type: "button", textContent: text, className: "quiet" });
      made.setAttribute("aria-label", `${label}, ${name}`);
      made.title = label;
      made.addEventListener("click", act);
      box.append(made);
      return made;
    };
    button("\u2212", `${strings.zoom} \u2212`, () => this.zoomBy(1 / 1.25));
    button("+", `${strings.zoom} +`, () => this.zoomBy(1.25));
    this.inverter = button(strings.invert, strings.invert, () => { this.inverted = !this.inverted; this.draw(); });
    button(strings.reset, strings.reset, () => this.reset());
    return box;
  }

  #say() {
    this.windowSlider.value = this.window;
    this.levelSlider.value = this.level;
    this.inverter.setAttribute("aria-pressed", this.inverted);
    Object.assign(this.canvas.dataset, { zoom: this.zoom.toFixed(2), window: this.window, level: this.level,
      inverted: this.inverted, heat: Boolean(this.weights) });
  }

  #listen() {
    const keys = {
      "+": () => this.zoomBy(1.25), "=": () => this.zoomBy(1.25), "-": () => this.zoomBy(1 / 1.25),
      i: () => { this.inverted = !this.inverted; this.draw(); }, 0: () => this.reset(),
      w: () => this.change(16, 0), s: () => this.change(-16, 0), e: () => this.change(0, 8), d: () => this.change(0, -8),
      ArrowLeft: () => this.#move(0.1, 0), ArrowRight: () => this.#move(-0.1, 0),
      ArrowUp: () => this.#move(0, 0.1), ArrowDown: () => this.#move(0, -0.1),
    };
    this.canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      if (event.key.startsWith("Arrow") && this.zoom === 1) return;  // the page scrolls
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    });
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== this.canvas) return;
      event.preventDefault();
      const scale = this.width / this.canvas.clientWidth;
      this.zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.offsetX * scale, event.offsetY * scale);
    }, { passive: false });
    // Dragging changes window (horizontal) and level (vertical); with Shift or by touch, it moves the zoomed view.
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" && this.zoom === 1) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.canvas.focus();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.canvas.hasPointerCapture(event.pointerId)) return;
      if (event.shiftKey || event.pointerType === "touch") {
        const scale = this.width / this.canvas.clientWidth;
        this.x += event.movementX * scale;
        this.y += event.movementY * scale;
        this.draw();
      } else this.change(event.movementX, -event.movementY / 2);
    });
  }

  #move(x, y) {
    this.x += x * this.width;
    this.y += y * this.height;
    this.draw();
  }
}
