// Shows where a model looked: point at a word of its report (or focus or tap it), and its attention lies over the
// views. Without this script the page shows views and reports alone.
"use strict";
(() => {
  const form = document.querySelector(".controls");

  // From transparent over yellow to red.
  const colour = (share) => [255, Math.round(220 * (1 - share)), 0, Math.round(200 * share)];
  // Full color means at least this many times uniform attention, so that uniform attention does not look like a finding.
  const CONTRAST = 4;
  const percent = (share) => (share > 0 && share < 0.01 ? "under 1%" : `${Math.round(100 * share)}%`);

  function explain(element) {
    const data = element.dataset;
    const bytes = Uint8Array.from(atob(data.weights), (letter) => letter.charCodeAt(0));
    const weights = new Uint16Array(bytes.buffer);
    const [layers, views, side] = [Number(data.layers), Number(data.views), Number(data.side)];
    const cells = side * side;
    const canvases = Array.from(element.querySelectorAll("canvas"));
    const words = Array.from(element.querySelectorAll(".word"));
    const report = element.querySelector(".report");
    const readout = element.querySelector(".readout");
    let pinned = null;

    // The words that are meant by pointing at one.
    function meant(word) {
      if (word === null) return words;
      if (form.elements.unit.value === "word") return [word];
      return words.filter((other) => other.dataset.sentence === word.dataset.sentence);
    }

    // Mean attention of some words, for all cells of all views.
    function attention(numbers) {
      const chosen = form.elements.layer.value === "all" ? [...Array(layers).keys()] : [Number(form.elements.layer.value)];
      const mean = new Float64Array(views * cells);
      for (const number of numbers) {
        for (const layer of chosen.filter((layer) => layer < layers)) {
          const first = (number * layers + layer) * views * cells;
          for (let cell = 0; cell < mean.length; cell++) mean[cell] += weights[first + cell] / 65535;
        }
      }
      const count = numbers.length * chosen.length;
      return mean.map((weight) => weight / count);
    }

    function draw(map, full) {
      canvases.forEach((canvas) => {
        const context = canvas.getContext("2d");
        const image = context.createImageData(side, side);
        const first = Number(canvas.dataset.view) * cells;
        for (let cell = 0; cell < cells; cell++) image.data.set(colour(map[first + cell] / full), 4 * cell);
        context.putImageData(image, 0, 0);
      });
    }

    function show(word) {
      if (words.length === 0) return;
      const shown = meant(word);
      const map = attention(shown.map((other) => Number(other.dataset.word)));
      const strongest = map.reduce((most, weight) => Math.max(most, weight), 0);
      const even = 1 / (canvases.length * cells);
      draw(map, Math.max(strongest, CONTRAST * even));
      for (const other of words) other.classList.toggle("shown", word !== null && shown.includes(other));
      const shares = canvases.map((canvas) => {
        const first = Number(canvas.dataset.view) * cells;
        return map.slice(first, first + cells).reduce((sum, weight) => sum + weight, 0);
      });
      const parts = canvases.map((canvas, index) => `${percent(shares[index])} on the ${canvas.dataset.name}`);
      const elsewhere = 1 - shares.reduce((sum, share) => sum + share, 0);
      if (elsewhere > 0.005) parts.push(`${percent(elsewhere)} on no place of an image`);
      const cell = map.indexOf(strongest);
      const view = canvases.find((canvas) => Number(canvas.dataset.view) === Math.floor(cell / cells));
      const [row, column] = [Math.floor((cell % cells) / side) + 1, (cell % side) + 1];
      const text = shown.map((other) => other.textContent).join(" ").replace(/ ([.,:;?!])/g, "$1");
      const what = word === null ? "Whole report" : `“${text}”`;
      readout.textContent = `${what}: ${parts.join(", ")}.`
        + (strongest > 0 && view
          ? ` Strongest: ${(strongest / even).toFixed(1)} times uniform attention, in row ${row}, column ${column} of ${side} on the ${view.dataset.name}.`
          : "");
    }

    function pin(word) {
      pinned = pinned === word ? null : word;
      for (const other of words) other.setAttribute("aria-pressed", String(other === pinned));
      show(pinned);
    }

    // One stop of the tab key a report; arrows go from word to word.
    function move(word, step) {
      const next = words[Math.min(Math.max(words.indexOf(word) + step, 0), words.length - 1)];
      for (const other of words) other.tabIndex = other === next ? 0 : -1;
      next.focus();
    }

    words.forEach((word, number) => {
      word.tabIndex = number === 0 ? 0 : -1;
      word.addEventListener("pointerenter", () => show(word));
      word.addEventListener("focus", () => show(word));
      word.addEventListener("click", () => pin(word));
      word.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -words.length, End: words.length };
        if (event.key in steps) {
          event.preventDefault();
          move(word, steps[event.key]);
        } else if (event.key === "Escape" && pinned) {
          pin(pinned);
        }
      });
    });
    report.addEventListener("pointerleave", () => show(pinned));
    report.addEventListener("focusout", (event) => {
      if (!report.contains(event.relatedTarget)) show(pinned);
    });
    return () => show(pinned);
  }

  const redraw = Array.from(document.querySelectorAll(".explained"), explain);
  function update() {
    document.body.classList.toggle("cells", form.elements.cells.checked);
    for (const again of redraw) again();
  }
  form.hidden = false;
  document.querySelector(".without-script").hidden = true;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
})();
