// Sorting and filtering of the board. Without it the page shows every row in the order of its rank.
"use strict";
(() => {
  const table = document.getElementById("board");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const controls = document.getElementById("controls");
  const said = document.getElementById("shown");
  const cells = JSON.parse(document.getElementById("cells").textContent);
  const RATES = ["rate_upper", "rate_lower", "rate_early", "rate_end"];
  const EMPTIED = ["rank", "rate", "difference", "of_coherent", "refused", "capability", "norm", "flatness_gap", "end_loss", "steps"];
  const CHANGED = [...RATES, ...EMPTIED, "coherent"];
  let original = null; // what the changed cells showed, kept from the first time that some cells are chosen
  let sorted = { column: 0, down: false };
  let narrowed_before = false;

  const value = (row, column) => row.cells[column].dataset.value;

  function sort(column, down) {
    sorted = { column, down };
    const numeric = table.tHead.rows[0].cells[column].dataset.kind === "number";
    const order = rows.map((row, i) => [row, i, value(row, column)]);
    order.sort((a, b) => {
      // What has no value comes last, whichever way the rest is sorted.
      if ((a[2] === "") !== (b[2] === "")) return a[2] === "" ? 1 : -1;
      const by = numeric ? Number(a[2]) - Number(b[2]) : a[2].localeCompare(b[2]);
      return (down ? -by : by) || a[1] - b[1];
    });
    const all = document.createDocumentFragment();
    for (const [row] of order) all.append(row);
    body.append(all);
    [...table.tHead.rows[0].cells].forEach((th, i) => {
      if (i === column) th.setAttribute("aria-sort", down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    if (controls.sort) controls.sort.value = String(column);
  }

  function mark(fill, hollow) {
    const make = (name, attributes) => {
      const e = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
      return e;
    };
    const svg = make("svg", { class: "bar", width: 10, height: 10, "aria-hidden": "true" });
    svg.append(make("circle", { cx: 5, cy: 5, r: 3, fill: hollow ? "none" : fill, stroke: fill, "stroke-width": 1.8 }));
    return svg;
  }

  function put(cell, three, fill, hollow) {
    const inside = document.createElement("span");
    inside.className = "cell";
    cell.dataset.value = three ? String(three[0]) : "";
    if (three) {
      const sub = document.createElement("span");
      sub.className = "sub";
      sub.textContent = `${(100 * three[1]).toFixed(1)} to ${(100 * three[2]).toFixed(1)}`;
      inside.append(mark(fill, hollow), ` ${(100 * three[0]).toFixed(1)}`, sub);
      if (hollow) {
        const said = document.createElement("span");
        said.className = "sub fail";
        said.textContent = "broken";
        inside.append(said);
      }
    } else inside.textContent = "–";
    cell.replaceChildren(inside);
  }

  const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;

  // One cell: its own rate and interval. Several (a model or a dataset alone): their mean, whose interval is not drawn.
  function narrowed(row, model, dataset) {
    const found = cells[row.dataset.name].filter((c) => (!model || c[0] === model) && (!dataset || c[1] === dataset));
    const over = (key) => {
      if (!found.length || found.some((c) => !c[2][key])) return [null, false];
      const hollow = found.some((c) => c[3][key]);
      if (found.length === 1) return [found[0][2][key], hollow];
      const m = mean(found.map((c) => c[2][key][0]));
      return [[m, m, m], hollow];
    };
    return [over, found.length && found.every((c) => c[4] !== null) ? mean(found.map((c) => c[4])) : null];
  }

  function filter() {
    const [track, status, model, dataset] = ["track", "status", "model", "dataset"].map((n) => controls[n].value);
    const words = controls.search.value.trim().toLowerCase();
    const narrow = model !== "" || dataset !== "";
    if (narrow && !original) {
      original = new Map();
      for (const row of rows) for (const c of row.cells) if (CHANGED.includes(c.dataset.key)) original.set(c, [c.innerHTML, c.dataset.value]);
    }
    let count = 0;
    for (const row of rows) {
      const fits = (!track || row.dataset.track === track) && (!status || row.dataset.status === status) && (!words || row.dataset.text.includes(words));
      row.hidden = !fits;
      count += fits;
      const column = (key) => row.querySelector(`[data-key="${key}"]`);
      if (narrow) {
        const [over, coherent] = narrowed(row, model, dataset);
        for (const key of RATES) put(column(key), over(key)[0], row.dataset.tint, over(key)[1]);
        const shown = coherent === null ? "–" : (100 * coherent).toFixed(1);
        for (const [key, text, v] of [...EMPTIED.map((k) => [k, "–", ""]), ["coherent", shown, coherent ?? ""]]) {
          const inside = document.createElement("span");
          inside.className = "cell";
          inside.textContent = text;
          column(key).replaceChildren(inside);
          column(key).dataset.value = String(v);
        }
      }
    }
    if (original && !narrow) {
      for (const [cell, [html, v]] of original) {
        cell.innerHTML = html;
        cell.dataset.value = v;
      }
      original = null;
    }
    said.textContent = `${count} of ${rows.length} entries` + (narrow ? ", of some cells only: ranks are over all of them" : "");
    if (narrow || narrowed_before) sort(narrow ? [...table.tHead.rows[0].cells].findIndex((c) => c.dataset.key === "rate_lower") : 0, false);
    narrowed_before = narrow;
  }

  [...table.tHead.rows[0].cells].forEach((th, i) => {
    th.querySelector("button")?.addEventListener("click", () => sort(i, sorted.column === i && !sorted.down));
  });
  controls.addEventListener("input", (e) => (e.target.name === "sort" ? sort(Number(e.target.value), false) : filter()));
  controls.addEventListener("submit", (e) => e.preventDefault());
  controls.addEventListener("reset", () => setTimeout(() => { filter(); sort(0, false); }));
  // A browser that comes back to the page may have kept what was chosen.
  if ([...controls.elements].some((e) => e.name && e.name !== "sort" && e.value)) filter();
})();
