"use strict";
(() => {
  const MOST_UNFILTERED = 8;
  const key = (row, at) => {
    const cell = row.cells[at];
    return cell.classList.contains("number")
      ? { number: "value" in cell.dataset ? Number(cell.dataset.value) : null, text: "" }
      : { number: undefined, text: cell.textContent };
  };
  const compare = (one, other) =>
    one.number !== undefined && other.number !== undefined
      ? one.number - other.number
      : one.text.localeCompare(other.text, undefined, { numeric: true });
  const sort = (table, head, at) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, by: key(row, at) }));
    const last = ({ by }) => by.number === null; // what is missing stands at the end either way
    rows.sort((a, b) => last(a) - last(b) || (down ? -1 : 1) * compare(a.by, b.by));
    table.tBodies[0].append(...rows.map(({ row }) => row));
  };
  const filter = (table, words) => {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
    }
  };
  for (const table of document.querySelectorAll("table")) {
    const rows = table.tBodies[0].rows.length;
    if (rows < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(table, head, at));
    });
    if (rows <= MOST_UNFILTERED) continue;
    const input = document.createElement("input");
    input.type = "search";
    input.className = "filter";
    input.placeholder = `filter ${rows} rows`;
    input.setAttribute("aria-label", "filter rows");
    input.addEventListener("input", () => filter(table, input.value));
    table.closest(".wide").before(input);
  }
})();
