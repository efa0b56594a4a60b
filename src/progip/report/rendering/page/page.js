// Sorts and filters tables, shows values on hover and focus, marks where one is in the contents.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // a cell as a number where it begins with one: 12,345  <0.01  1.23 (0.9–1.6)  3 / 40
  const number = (text) => {
    const found = text.replace(/,/g, "").match(/^[<>≥≤±]?\s*([+-]?\d+(\.\d+)?([eE][+-]?\d+)?)/);
    return found ? Number(found[1]) : null;
  };
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x !== null ? -1 : 1; // a dash is last
    return a.localeCompare(b, "en", { numeric: true });
  };

  // a line with the lines below it that begin with a dot belong together
  const groups = (body) => {
    const found = [];
    for (const row of body.rows) {
      if (row.classList.contains("more") && found.length) found.at(-1).push(row);
      else found.push([row]);
    }
    return found;
  };

  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const original = groups(body);
    const heads = all("thead th, thead td", table);
    heads.forEach((head, place) => {
      const name = head.textContent.trim();
      if (!name) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.title = "Sort; a third time: as before";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const first = number(original[0][0].cells[place].textContent) === null ? "ascending" : "descending";
        const second = first === "ascending" ? "descending" : "ascending";
        const next = now === null ? first : now === first ? second : null;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        let order = original;
        if (next) {
          head.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          const text = (group) => group[0].cells[place].textContent.trim();
          const empty = (value) => value === "–" || value === "" || value === "N/A";
          order = [...original].sort((a, b) => {
            const x = text(a), y = text(b);
            if (empty(x) || empty(y)) return empty(x) - empty(y);
            return sign * compare(x, y);
          });
          table.dataset.sorted = place;
        } else delete table.dataset.sorted;
        body.append(...order.flat());
      });
    });
  }

  for (const table of all("table.filterable")) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("span");
    label.className = "filter";
    input.type = "search";
    count.setAttribute("aria-live", "polite");
    label.append("Only rows with", input, count);
    table.closest(".scroll").before(label);
    const rows = groups(table.tBodies[0]);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const group of rows) {
        const text = group.map((row) => row.textContent.toLowerCase()).join(" ");
        const hit = words.every((word) => text.includes(word));
        group.forEach((row) => { row.hidden = !hit; });
        shown += hit;
      }
      count.textContent = words.length ? `${shown} of ${rows.length}` : "";
    });
  }

  // values of points and squares, in place of the browser's own slow tooltips
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const show = (element) => {
    tip.textContent = element.dataset.hint;
    tip.hidden = false;
    const at = element.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(at.left + at.width / 2 - own.width / 2, 6), innerWidth - own.width - 6);
    const above = at.top - own.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 6 ? above : at.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const element of all(".mark")) {
    const title = element.querySelector("title");
    element.dataset.hint = title.textContent;
    element.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  for (const element of all("td[title]")) {
    element.dataset.hint = element.title;
    element.setAttribute("aria-description", element.title);
    element.removeAttribute("title");
  }
  const hinted = (event) => event.target.closest?.("[data-hint]");
  document.addEventListener("pointerover", (event) => (hinted(event) ? show(hinted(event)) : hide()));
  document.addEventListener("focusin", (event) => (hinted(event) ? show(hinted(event)) : hide()));
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // one stop of the Tab key for each figure and map; arrow keys go from value to value
  const go = (event, next) => {
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  for (const drawing of all(".drawing svg")) {
    const marks = all(".mark", drawing);
    marks.forEach((mark, place) => { mark.tabIndex = place ? -1 : 0; });
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) go(event, marks[marks.indexOf(event.target) + step]);
    });
  }
  for (const table of all(".map table")) {
    const first = table.querySelector("td[data-hint]");
    if (first) first.tabIndex = 0;
    table.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      const cell = event.target.closest("td[data-hint]");
      if (!step || !cell) return;
      let row = cell.parentElement.sectionRowIndex, column = cell.cellIndex, next;
      do {
        row += step[0];
        column += step[1];
        next = table.tBodies[0].rows[row]?.cells[column];
      } while (next && next.tagName === "TD" && !next.dataset.hint);
      if (next?.dataset.hint) go(event, next);
    });
  }

  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
    const here = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) {
      if (id === here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-10% 0px -60% 0px" });
  for (const id of links.keys()) watch.observe(document.getElementById(id));
})();
