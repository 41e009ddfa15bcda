"use strict";
(() => {
  const form = document.querySelector(".filters");
  const rows = [...document.querySelectorAll("[data-row]")];
  const search = form.querySelector("[data-search]");
  const selects = [...form.querySelectorAll("[data-filter]")];
  const said = form.querySelector("output");
  const separator = { kind: "|" };
  const has = (row, name, value) => {
    const held = row.dataset[name];
    // What a row says nothing about does not hide it.
    return held === undefined || held.split(separator[name] || " ").includes(value);
  };
  let texts = null;
  const apply = () => {
    const wanted = selects.filter((select) => select.value);
    const words = search.value.trim().toLowerCase();
    if (words && !texts) texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    let visible = 0;
    for (const row of rows) {
      const keep = wanted.every((select) => has(row, select.dataset.filter, select.value)) && (!words || texts.get(row).includes(words));
      row.hidden = !keep;
      visible += keep;
    }
    const filtering = wanted.length > 0 || words;
    said.textContent = filtering ? `${visible} of ${rows.length} rows and cases` : "";
    const state = new URLSearchParams();
    for (const select of wanted) state.set(select.dataset.filter, select.value);
    if (words) state.set("search", search.value);
    try { sessionStorage.setItem("filters", state.toString()); } catch { /* a file may have no storage */ }
  };
  form.hidden = rows.length === 0;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  const seconds = Number(document.body.dataset.reload || 0);
  if (seconds) {
    try {
      const state = new URLSearchParams(sessionStorage.getItem("filters") || "");
      for (const select of selects) select.value = state.get(select.dataset.filter) || "";
      search.value = state.get("search") || "";
      apply();
    } catch { /* a file may have no storage */ }
    setInterval(() => { if (!document.querySelector("details[open]") && document.activeElement === document.body) location.reload(); }, 1000 * seconds);
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
})();
