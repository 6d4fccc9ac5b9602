"use strict";
(() => {
  const shared = JSON.parse(document.getElementById("shared").textContent);
  const dark = window.matchMedia("screen and (prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  let printing = false;

  // ---- the library that draws: unpacked here, since it is most of the file
  const library = (async () => {
    const packed = document.getElementById("library");
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    packed.replaceWith(script);
  })();
  library.catch(() => {
    const said = document.getElementById("undrawn");
    document.querySelector("main").prepend(said);
    said.hidden = false;
  });

  // ---- figures: drawn when they come near, in the colours of the page
  const themed = (text) =>
    dark.matches && !printing
      ? text.replace(/#[0-9a-f]{6}/g, (colour) => shared.dark[colour] || colour)
      : text;
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: !coarse,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };
  const drawn = new Set();

  const draw = (figure) => {
    const plot = figure.querySelector(".plot");
    const text = themed(figure.querySelector("script.spec").textContent);
    const { data, layout } = JSON.parse(text);
    layout.template = JSON.parse(themed(JSON.stringify(shared.template)));
    layout.autosize = true;
    if (coarse) layout.dragmode = false; // a finger that scrolls the page must not zoom
    if (plot.clientWidth < 480) {
      layout.font = { size: 11 };
      layout.margin = { ...layout.margin, l: 44, r: 6 };
      layout.xaxis = { ...layout.xaxis, ...layout.meta?.narrow };
      const entries = data.filter((trace) => trace.name && trace.showlegend !== false).length;
      if (layout.showlegend !== false && entries > 2) layout.height += 17 * (entries - 2);
    }
    plot.style.height = `${layout.height}px`;
    const hidden = series(figure, data);
    for (const trace of data) if (hidden.has(trace.legendgroup || trace.name)) trace.visible = "legendonly";
    drawn.add(figure);
    return Plotly.react(plot, data, layout, config);
  };

  // The legend for those who use no pointer: a checkbox an entry. Returns what is not checked.
  const series = (figure, data) => {
    const known = new Map();
    for (const trace of data) {
      if (trace.name && trace.showlegend !== false) known.set(trace.legendgroup || trace.name, trace.name);
    }
    let box = figure.querySelector("details.series");
    if (!box && known.size > 1) {
      box = document.createElement("details");
      box.className = "series";
      const summary = document.createElement("summary");
      summary.textContent = "Choose what is drawn";
      box.append(summary);
      for (const [key, name] of known) {
        const label = document.createElement("label");
        const check = document.createElement("input");
        check.type = "checkbox";
        check.checked = true;
        check.value = key;
        check.addEventListener("change", () => draw(figure));
        const spoken = new DOMParser().parseFromString(name, "text/html").body.textContent;
        label.append(check, ` ${spoken}`);
        box.append(label);
      }
      figure.querySelector("details.data").before(box);
    }
    const unchecked = box ? box.querySelectorAll("input:not(:checked)") : [];
    return new Set([...unchecked].map((check) => check.value));
  };
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
      }
    },
    { rootMargin: "800px 0px" },
  );
  const figures = [...document.querySelectorAll("figure.drawn")];
  library.then(() => figures.forEach((figure) => near.observe(figure)));
  const redraw = () => drawn.forEach((figure) => draw(figure));
  dark.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => {
    printing = true;
    figures.filter((figure) => !figure.hidden).forEach((figure) => draw(figure));
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    redraw();
  });

  // ---- menus: one figure of a panel at a time
  const panels = [...document.querySelectorAll(".panel")];
  const choices = new Map();
  for (const panel of panels) {
    const own = [...panel.querySelectorAll("figure.drawn")];
    choices.set(panel, own.map((figure) => [figure, JSON.parse(figure.dataset.choice)]));
  }
  const show = (panel, changed) => {
    const menus = [...panel.querySelectorAll("select")];
    const wanted = Object.fromEntries(menus.map((menu) => [menu.dataset.menu, menu.value]));
    const fits = (choice) => menus.filter((m) => choice[m.dataset.menu] === wanted[m.dataset.menu]);
    const own = choices.get(panel);
    const able = own.filter(([, choice]) => !changed || choice[changed] === wanted[changed]);
    let best = able[0];
    for (const each of able) if (fits(each[1]).length > fits(best[1]).length) best = each;
    for (const [figure] of own) figure.hidden = figure !== best[0];
    for (const menu of menus) menu.value = best[1][menu.dataset.menu];
    if (typeof Plotly === "undefined") return; // it comes, and draws what is then shown
    if (!drawn.has(best[0])) draw(best[0]);
    else Plotly.Plots.resize(best[0].querySelector(".plot"));
  };
  for (const panel of panels) {
    for (const menu of panel.querySelectorAll("select")) {
      menu.addEventListener("change", () => {
        show(panel, menu.dataset.menu);
        if (menu.dataset.menu !== "Trial") return;
        for (const other of panels) { // the same trial everywhere
          const twin = other.querySelector('select[data-menu="Trial"]');
          if (other === panel || !twin || ![...twin.options].some((o) => o.value === menu.value)) continue;
          twin.value = menu.value;
          show(other, "Trial");
        }
      });
    }
  }

  // ---- tables behind figures: made when they are opened
  const rowOf = (tag, cells, texts) => {
    const row = document.createElement("tr");
    cells.forEach((cell, at) => {
      const made = document.createElement(tag);
      if (tag === "th") made.scope = "col";
      if (texts[at]) made.className = "text";
      made.textContent = cell;
      row.append(made);
    });
    return row;
  };
  for (const details of document.querySelectorAll("details.data")) {
    details.addEventListener("toggle", () => {
      const place = details.querySelector(".scroll");
      if (!details.open || place.childElementCount) return;
      const { columns, rows } = shared.tables[details.dataset.table];
      const texts = columns.map((_, at) => rows.some((r) => /[a-zA-Z]/.test(r[at])));
      const table = document.createElement("table");
      const head = document.createElement("thead");
      head.append(rowOf("th", columns, texts));
      const body = document.createElement("tbody");
      rows.forEach((cells) => body.append(rowOf("td", cells, texts)));
      table.append(head, body);
      place.append(table);
    });
  }

  // ---- the table of tickets: sorted, filtered; commands copied
  const tickets = document.getElementById("tickets");
  if (tickets) {
    const body = tickets.tBodies[0];
    const heads = [...tickets.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "descending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "ascending" : "descending");
        const key = (row) => row.cells[at].dataset.sort ?? row.cells[at].textContent;
        const number = (row) => (key(row) === "" ? NaN : Number(key(row)));
        const sign = down ? 1 : -1;
        const order = (a, b) => {
          const [x, y] = [number(a), number(b)];
          if (!Number.isNaN(x) && !Number.isNaN(y)) return sign * (x - y);
          if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
          return sign * key(a).localeCompare(key(b));
        };
        body.append(...[...body.rows].sort(order));
      });
    });
    const filter = document.getElementById("filter");
    const count = document.getElementById("count");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.dataset.text;
        row.hidden = !words.every((word) => text.includes(word));
        if (!row.hidden) shown += 1;
      }
      count.textContent = `${shown} of ${body.rows.length} trials`;
    });
  }
  const copied = document.getElementById("copied");
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const code = button.closest(".command").querySelector("code");
    let done = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      window.getSelection().selectAllChildren(code);
      done = document.execCommand("copy"); // pages from disk may lack the clipboard's interface
    }
    button.textContent = done ? "Copied" : "Selected";
    copied.textContent = done ? "The command was copied." : "The command is selected.";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
})();
