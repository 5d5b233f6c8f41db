// Filters and sorts what the page shows; without it everything is there, in the order that matters most.
"use strict";
document.documentElement.classList.add("js");

// An item list: <select data-filter="groups"> keeps items whose groups contain the value, <select data-sort> has values
// such as "loss:desc". Both tell how many are shown.
for (const controls of document.querySelectorAll(".controls")) {
  const list = document.getElementById(controls.dataset.list);
  const count = controls.querySelector("[aria-live]");
  const update = () => {
    const items = [...list.children];
    const filters = [...controls.querySelectorAll("[data-filter]")].filter((select) => select.value);
    let shown = 0;
    for (const item of items) {
      const keep = filters.every((select) => item.dataset[select.dataset.filter].split(" ").includes(select.value));
      item.hidden = !keep;
      shown += keep;
    }
    const [key, direction] = controls.querySelector("[data-sort]").value.split(":");
    const sign = direction === "desc" ? -1 : 1;
    items.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]));
    list.append(...items);
    count.textContent = `${shown} of ${items.length} shown`;
  };
  controls.addEventListener("change", update);
  update();
}

// A table whose columns can be sorted by the buttons in its head.
for (const button of document.querySelectorAll("th[aria-sort] button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = [...head.parentElement.children].indexOf(head);
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const cell = row.children[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  });
}
