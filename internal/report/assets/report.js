"use strict";
// Shows only the lines of the log that contain a text.
(() => {
  const input = document.getElementById("filter");
  if (!input) {
    return;
  }
  const matches = document.getElementById("matches");
  const lines = Array.from(document.querySelectorAll(".log > li"));
  let timer;
  const apply = () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const line of lines) {
      line.hidden = wanted !== "" && !line.textContent.toLowerCase().includes(wanted);
      shown += line.hidden ? 0 : 1;
    }
    matches.textContent = wanted === "" ? "" : shown + (shown === 1 ? " line" : " lines");
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(apply, 150);
  });
  // A link to a line that is filtered out shows all lines again.
  addEventListener("hashchange", () => {
    const line = document.getElementById(location.hash.slice(1));
    if (line && line.hidden) {
      input.value = "";
      apply();
      line.scrollIntoView();
    }
  });
  input.parentElement.hidden = false;
})();
