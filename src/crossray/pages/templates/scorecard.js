// Filters the studies of a scorecard. Boxes of one row widen what is shown, rows narrow it, and a row without a
// ticked box hides nothing. Without this script all studies are shown.
"use strict";
(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const count = form.querySelector("output");
  const studies = Array.from(document.querySelectorAll(".study"), (element) => ({
    element,
    texts: element.querySelectorAll("[data-system]"),
    words: element.textContent.toLowerCase(),
    marks: element.dataset.marks.split(" ").filter(Boolean).map((mark) => {
      const [system, kind, observation] = mark.split(":");
      return { system, kind, observation };
    }),
  }));

  const ticked = (name) => new Set(Array.from(form.querySelectorAll(`[name=${name}]:checked`), (box) => box.value));
  const allows = (chosen, value) => chosen.size === 0 || chosen.has(value);

  function apply() {
    const systems = ticked("system"), kinds = ticked("kind"), observations = ticked("observation");
    const words = form.elements.words.value.trim().toLowerCase();
    let shown = 0;
    for (const study of studies) {
      const fits = (mark) => allows(systems, mark.system) && allows(kinds, mark.kind) && allows(observations, mark.observation);
      const marked = (kinds.size === 0 && observations.size === 0) || study.marks.some(fits);
      const visible = marked && study.words.includes(words);
      study.element.hidden = !visible;
      for (const text of study.texts) text.hidden = !allows(systems, text.dataset.system);
      shown += visible ? 1 : 0;
    }
    count.textContent = `${shown} of ${studies.length} studies`;
  }

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
})();
