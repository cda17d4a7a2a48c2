"use strict";
// Highlights designs in all charts and tables, shows tooltips, sorts, filters and copies tables.
// Values are only ever set as text, never as markup.
{
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const announcer = document.getElementById("announcer"); // what is set here is read aloud by screen readers
  const chips = all(".chip[data-keys]");
  const highlighted = new Set(); // numbers of designs

  const keysOf = (chip) => chip.dataset.keys.split(" ");
  const update = () => {
    document.body.classList.toggle("highlighting", highlighted.size > 0);
    for (const one of all("[data-k]")) one.classList.toggle("on", highlighted.has(one.dataset.k));
    for (const chip of chips) chip.setAttribute("aria-pressed", keysOf(chip).every((key) => highlighted.has(key)));
    const none = document.getElementById("none");
    if (none) none.hidden = !highlighted.size;
  };
  const toggle = (keys) => {
    const every = keys.every((key) => highlighted.has(key));
    for (const key of keys) if (every) highlighted.delete(key); else highlighted.add(key);
    update();
  };
  const clear = () => { highlighted.clear(); update(); };
  for (const chip of chips) chip.addEventListener("click", () => toggle(keysOf(chip)));
  document.getElementById("none")?.addEventListener("click", clear);
  document.addEventListener("click", (event) => {
    const mark = event.target.closest(".m[data-k]");
    if (mark) toggle([mark.dataset.k]);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { clear(); hideTip(); } });

  let focused = null; // the mark that the keyboard is at
  const hideTip = () => { focused = null; tip.classList.remove("visible"); };
  const showFocused = () => {
    const box = focused.getBoundingClientRect();
    showTip(data.tips[focused.dataset.tip], box.right, box.top);
  };
  const showTip = (text, x, y) => {
    tip.textContent = text;
    tip.classList.add("visible");
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18}px`;
  };
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("[data-tip]");
    if (mark) showTip(data.tips[mark.dataset.tip], event.clientX, event.clientY); else hideTip();
  });
  document.addEventListener("scroll", () => (focused ? showFocused() : hideTip()), { passive: true });

  // The keyboard: arrows walk through the marks of a chart, Enter highlights the design of a mark.
  for (const plot of all(".plot")) {
    let at = -1;
    plot.addEventListener("blur", () => { at = -1; hideTip(); });
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const marks = all("[data-tip]", plot).filter((one) => one.getClientRects().length);
      if (step && marks.length) {
        event.preventDefault();
        at = Math.max(0, Math.min(marks.length - 1, at < 0 ? 0 : at + step));
        const box = marks[at].getBoundingClientRect();
        if (box.top < 80 || box.bottom > innerHeight) marks[at].scrollIntoView({ block: "center", behavior: "instant" });
        focused = marks[at];
        showFocused();
        announcer.textContent = data.tips[marks[at].dataset.tip];
      } else if (event.key === "Enter" && marks[at]?.dataset.k) {
        toggle([marks[at].dataset.k]);
      }
    });
  }

  // Tables. A column is {name, title, kind: "text" | "number" | "rows", digits, text, numbers}. numbers: text ->
  // what it sorts by. A row is a list of values, then the
  // number of its design, or -1.
  const PAGE = 200;
  const plain = (value) => (value === null || value === undefined ? "" : Array.isArray(value) ? value.join(" ") : String(value));
  const nice = (value, column) => {
    if (column.kind !== "number" || typeof value !== "number") return plain(value);
    return value.toLocaleString("en", { minimumFractionDigits: column.digits, maximumFractionDigits: column.digits });
  };
  const make = (name, text, parent) => {
    const one = document.createElement(name);
    if (text !== undefined) one.textContent = text;
    parent?.append(one);
    return one;
  };
  const tables = {};
  for (const place of all("[data-table]")) {
    const { columns, rows } = data.tables[place.dataset.table];
    const filter = place.querySelector("input");
    const table = place.querySelector("table");
    const count = place.querySelector(".count");
    const state = { sort: -1, down: false, only: null, limit: PAGE };
    tables[place.dataset.table] = { state, filter, draw: () => draw(), place };

    const head = make("tr", undefined, make("thead", undefined, table));
    const body = make("tbody", undefined, table);
    columns.forEach((column, index) => {
      const cell = make("th", undefined, head);
      cell.scope = "col";
      cell.className = column.kind === "number" ? "n" : "";
      const button = make("button", column.title, cell);
      button.title = column.text || "";
      button.addEventListener("click", () => {
        state.down = state.sort === index ? !state.down : column.kind === "number";
        state.sort = index;
        draw();
      });
    });
    const chosen = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = rows.filter((row) => {
        if (state.only && !state.only.has(row[0])) return false;
        const text = words.length ? row.slice(0, columns.length).map(plain).join("\u0001").toLowerCase() : "";
        return words.every((word) => text.includes(word));
      });
      if (state.sort >= 0) {
        const index = state.sort;
        const empty = (value) => value === null || value === "";
        found.sort((one, other) => {
          const [a, b] = [one[index], other[index]].map((value) => columns[index].numbers?.[value] ?? value);
          if (empty(a) || empty(b)) return empty(a) - empty(b);
          const order = typeof a === "number" && typeof b === "number" ? a - b : plain(a).localeCompare(plain(b), "en", { numeric: true });
          return state.down ? -order : order;
        });
      }
      return found;
    };
    const draw = () => {
      all("th", head).forEach((cell, index) => {
        if (index === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
      });
      const found = chosen();
      body.textContent = "";
      for (const row of found.slice(0, state.limit)) {
        const line = make("tr", undefined, body);
        if (row[columns.length] >= 0) line.dataset.k = row[columns.length];
        columns.forEach((column, index) => {
          const cell = make("td", undefined, line);
          if (column.kind === "number") cell.className = "n";
          if (column.kind !== "rows") { cell.textContent = nice(row[index], column); return; }
          const button = make("button", String(row[index].length), cell);
          button.setAttribute("aria-label", `Show these ${row[index].length} trials`);
          button.addEventListener("click", () => trace(row[index]));
        });
      }
      const more = found.length > state.limit;
      count.textContent = `${Math.min(found.length, state.limit)} of ${rows.length}`;
      place.querySelector(".more").hidden = !more;
      place.querySelector(".reset").hidden = !(state.only || filter.value || state.sort >= 0);
      update();
    };
    filter.addEventListener("input", draw);
    place.querySelector(".more").addEventListener("click", () => { state.limit = Infinity; draw(); });
    place.querySelector(".reset").addEventListener("click", () => {
      Object.assign(state, { sort: -1, only: null });
      filter.value = "";
      draw();
    });
    const grid = () => [columns.map((column) => column.name), ...chosen().map((row) => row.slice(0, columns.length).map(plain))];
    const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const forms = {
      csv: () => grid().map((row) => row.map(quoted).join(",")).join("\n"),
      markdown: () => {
        const escaped = grid().map((row) => row.map((text) => text.replaceAll("\\", "\\\\").replaceAll("|", "\\|").replaceAll("<", "&lt;").replace(/\s+/g, " ")));
        escaped.splice(1, 0, columns.map((column) => (column.kind === "number" ? "--:" : "---")));
        return escaped.map((row) => `| ${row.join(" | ")} |`).join("\n");
      },
    };
    for (const button of all("[data-copy]", place)) {
      button.addEventListener("click", async () => {
        const text = forms[button.dataset.copy]();
        try {
          await navigator.clipboard.writeText(text);
        } catch { // some browsers allow this on https pages only
          const area = make("textarea", text, document.body);
          area.select();
          document.execCommand("copy");
          area.remove();
          button.focus();
        }
        count.textContent = announcer.textContent = `Copied ${text.split("\n").length} lines.`;
      });
    }
    draw();
  }
  const trace = (numbers) => {
    const trials = tables.trials;
    if (!trials) return;
    Object.assign(trials.state, { only: new Set(numbers) });
    trials.filter.value = "";
    trials.draw();
    trials.place.closest("details")?.setAttribute("open", "");
    trials.place.scrollIntoView();
    trials.filter.focus({ preventScroll: true });
  };
  update();
}
