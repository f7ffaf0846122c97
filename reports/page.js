"use strict";
// What a page can do in place. Everything drawn here stands on the page without it, too: figures, frames and tables.
// Text goes in as text only; the page's policy lets nothing but this script run, and nothing be fetched.
(() => {
  // an element with attributes, listeners (functions) and children
  function make(tag, set = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(set)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  const muted = (text) => make("p", { class: "muted" }, text);

  // keys that do something here; all others are the browser's
  const keys = (acts) => (event) => {
    const act = !event.ctrlKey && !event.metaKey && acts[event.key];
    if (!act) return;
    event.preventDefault();
    act(event);
  };
  const distinct = (values) => [...new Set(values)];
  const brief = (text) => (text.length > 400 ? `${text.slice(0, 399)}…` : text); // what is read out
  const framed = location.protocol === "about:"; // within a notebook, whose address is not ours

  // --- what is chosen, by the name of its axis; kept in the address, so that it can be sent -------------------------------

  const chosen = new Map();
  const axes = new Set(); // that something on this page has
  const listeners = [];
  let writing = 0;
  const tell = () => listeners.forEach((listener) => listener());
  const isChosen = (address, names = Object.keys(address)) => names.every((name) => chosen.get(name) === String(address[name]));

  function follow(names, listener) {
    for (const name of names) axes.add(name);
    listeners.push(listener);
  }

  function read() {
    clearTimeout(writing); // the address is somebody else's now
    const asked = [...new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"))].filter(([name]) => axes.has(name));
    if (!asked.length || !location.hash.includes("=")) return;
    chosen.clear();
    for (const [name, value] of asked) chosen.set(name, value);
    tell();
  }

  function choose(address) {
    for (const [name, value] of Object.entries(address)) chosen.set(name, String(value));
    tell();
    clearTimeout(writing); // browsers refuse many changes of the address in a row
    const before = location.hash;
    writing = setTimeout(() => {
      if (framed || location.hash !== before) return; // a link was followed meanwhile
      const parts = [...chosen].map((pair) => pair.map(encodeURIComponent).join("="));
      history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname);
    }, 120);
  }

  // --- figures -------------------------------------------------------------------------------------------------------

  // arrow keys move about a table of cells, of which one at a time is reached by Tab
  function roving(table) {
    function to(here, there) {
      if (!there?.hasAttribute("role")) return;
      here.tabIndex = -1;
      there.tabIndex = 0;
      there.focus();
    }
    const by = (down, right) => ({ target }) => {
      to(target, table.rows[target.parentElement.rowIndex + down]?.cells[target.cellIndex + right]);
    };
    const pick = ({ target }) => target.click();
    table.querySelector("[role=gridcell]")?.setAttribute("tabindex", 0);
    table.addEventListener("keydown", keys({
      ArrowUp: by(-1, 0), ArrowDown: by(1, 0), ArrowLeft: by(0, -1), ArrowRight: by(0, 1), Enter: pick, " ": pick,
      Home: ({ target }) => to(target, target.parentElement.cells[1]),
      End: ({ target }) => to(target, target.parentElement.lastElementChild),
    }));
  }

  function maps(stage, data) {
    const [line, theatre] = [stage.querySelector(".told"), stage.querySelector(".theatre")];
    const any = data.reels.some((ids) => ids.length);
    let open = null;
    stage.querySelectorAll("table").forEach(roving);

    const cells = [...stage.querySelectorAll("[role=gridcell]")].map((td, at) => {
      const address = Object.fromEntries(data.axes.map((name, axis) => [name, data.at[at][axis]]));
      const explain = () => line.replaceChildren(td.getAttribute("aria-label"));
      td.addEventListener("mouseenter", explain);
      td.addEventListener("focus", explain);
      td.addEventListener("click", () => choose(address));
      return { td, address, explain, reels: data.reels[at] };
    });

    function videos({ reels, address }) {
      if (any && !reels.length) return [muted("No video of this cell is kept; of those with a corner mark there is.")];
      return clipsOf(reels).map((clip) => make("div", {}, muted(clip.data.name), player(clip, address)));
    }

    follow(data.axes, () => {
      const asked = data.axes.slice(1).filter((name) => chosen.has(name)); // what is linked over panels
      for (const { address, td } of cells) {
        const whole = isChosen(address);
        td.classList.toggle("chosen", whole);
        td.setAttribute("aria-selected", whole);
        td.classList.toggle("linked", !whole && asked.length > 0 && isChosen(address, asked));
      }
      const now = cells.find(({ address }) => isChosen(address)) ?? null;
      now?.explain();
      if (now === open) return;
      open = now;
      theatre.replaceChildren(...(now ? videos(now) : []));
    });
  }

  function curves(stage, { along, at, names }) {
    const [place, name] = [stage.querySelector("input"), stage.querySelector("output")];
    const told = [...stage.querySelectorAll(".told > div")];
    function show(here) {
      [place.value, name.value] = [here, names[here]];
      place.setAttribute("aria-valuetext", `${along} ${names[here]}`);
      told.forEach((part, there) => (part.hidden = here !== there));
    }
    follow([along], () => {
      const here = at.findIndex((one) => isChosen({ [along]: one }));
      if (here >= 0) show(here);
    });
    place.addEventListener("input", () => choose({ [along]: at[place.value] }));
    show(0);
  }

  function points(stage, data) {
    const [line, preview, theatre] = [".told", ".preview", ".theatre"].map((part) => stage.querySelector(part));
    const plots = [...stage.querySelectorAll("svg.points")];
    const dots = plots.map((plot) => [...plot.querySelectorAll("circle")]);
    const all = dots[0].map((_, point) => point);
    const of = ({ values, at }, point) => values[at[point]];
    const columns = Object.entries(data.address);
    const address = (point) => Object.fromEntries(columns.map(([name, column]) => [name, of(column, point)]));
    const group = (point) => of(columns[0][1], point); // what belongs together
    const clips = { ...data.reels, values: data.reels.values.map(clipsOf) };
    const spot = ({ cx, cy }) => [cx.baseVal.value, cy.baseVal.value];
    let [at, picked] = [0, -1];

    function nearest(map, { clientX, clientY }) {
      const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(plots[map].getScreenCTM().inverse());
      const apart = dots[map].map(spot).map(([left, top]) => (left - x) ** 2 + (top - y) ** 2);
      return apart.indexOf(Math.min(...apart));
    }

    // what is looked at and what is chosen, and what belongs to each of them: above the others, joined where it is a course
    function mark() {
      const ones = distinct([picked, at]).filter((point) => point >= 0);
      const groups = ones.map((one) => all.filter((point) => group(point) === group(one)));
      plots.forEach((plot, map) => {
        const lines = groups.map((together) => `M${together.map((point) => spot(dots[map][point])).join("L")}`);
        const path = plot.querySelector("path");
        if (data.joined) path.setAttribute("d", lines.join(""));
        plot.append(path, ...groups.flat().map((point) => dots[map][point]), ...ones.map((one) => dots[map][one]));
        dots[map].forEach((dot, point) => {
          dot.classList.toggle("with", groups.some((together) => together.includes(point)));
          dot.classList.toggle("at", ones.includes(point));
        });
      });
    }

    function look(point) {
      at = point;
      const words = data.told.map((column) => of(column, at)).filter((text) => text !== null);
      line.replaceChildren(...words.map((text) => make("span", {}, text)));
      plots.forEach((plot, map) => plot.setAttribute("aria-label", brief(`${data.maps[map]}: ${words.join(", ")}`)));
      const glimpses = of(clips, at).flatMap((clip) => glimpse(clip, address(at)));
      preview?.replaceChildren(...(glimpses.length ? glimpses : [muted("No clip of this point is kept.")]));
      mark();
    }

    const by = (move) => () => look((at + move + all.length) % all.length);
    const pick = (point) => choose(address(point));
    const moves = keys({
      ArrowRight: by(1), ArrowDown: by(1), ArrowLeft: by(-1), ArrowUp: by(-1),
      Home: () => look(0), End: () => look(all.at(-1)), Enter: () => pick(at), " ": () => pick(at),
    });
    plots.forEach((plot, map) => {
      plot.addEventListener("keydown", moves);
      plot.addEventListener("focus", () => look(at));
      plot.addEventListener("mousemove", (event) => look(nearest(map, event)));
      plot.addEventListener("click", (event) => pick(nearest(map, event)));
    });
    follow(Object.keys(data.address), () => {
      const now = all.findIndex((point) => isChosen(address(point)));
      if (now === picked) return;
      picked = now;
      theatre.replaceChildren(...(now < 0 ? [] : of(clips, now).map((clip) => player(clip, address(now)))));
      if (now >= 0) look(now);
      else mark();
    });
    mark();
  }

  // --- clips ---------------------------------------------------------------------------------------------------------

  const APART = 48; // of 255, in any colour, from which on a pixel counts as different
  const [ORANGE, BLUE, RED, YELLOW] = [[230, 80, 0], "#0b5cad", "#d00000", "#ffe100"];

  function clipIn(figure) {
    const [held, sheet] = [figure?.querySelector("script"), figure?.querySelector("img.sheet")];
    return held && { figure, sheet, data: JSON.parse(held.textContent), said: figure.querySelectorAll(".said > li") };
  }
  const clipsOf = (ids) => ids.map((id) => clipIn(document.getElementById(id))).filter((clip) => clip);
  const saidOf = ({ said }, row) => [...said[row].cloneNode(true).children];
  const inWords = (parts) => parts.map((part) => part.textContent).join(", ");

  // rows that are of no place, and those of a place
  function fitting({ rows }, only = {}) {
    const fits = (row) => Object.entries(row.at ?? {}).every(([name, value]) => String(only[name] ?? value) === String(value));
    return rows.flatMap((row, at) => (fits(row) ? [at] : []));
  }

  function screen({ width, height }, label, wide) {
    const canvas = make("canvas", { role: "img", width, height, "aria-label": label });
    canvas.style.width = `${wide}px`;
    return canvas;
  }

  function put(canvas, { data: { width, height }, sheet }, row, frame) {
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(sheet, frame * width, row * height, width, height, 0, 0, width, height);
    return pen;
  }

  // the last frame of the first clip of a place, and what is said of it
  function glimpse(clip, only) {
    const [row] = fitting(clip.data, only);
    if (row === undefined) return [];
    const canvas = screen(clip.data, clip.data.rows[row].name, 144);
    put(canvas, clip, row, clip.data.frames.length - 1);
    return [make("figure", {}, canvas, make("figcaption", {}, inWords(saidOf(clip, row))))];
  }

  // what differs from another row in orange, the rest pale
  function markApart(canvas, clip, row, against, frame) {
    const { width, height } = clip.data;
    const pixels = (of) => put(canvas, clip, of, frame).getImageData(0, 0, width, height);
    const [base, own] = [pixels(against).data, pixels(row)];
    for (let at = 0; at < base.length; at += 4) {
      const apart = [0, 1, 2].some((c) => Math.abs(own.data[at + c] - base[at + c]) > APART);
      for (let c = 0; c < 3; c++) own.data[at + c] = apart ? ORANGE[c] : 0.35 * own.data[at + c] + 0.65 * 255;
    }
    canvas.getContext("2d").putImageData(own, 0, 0);
  }

  // a clip's player, as the page has drawn it: one row beside the last one, along steps; or all rows that fit a place
  function player(clip, only) {
    const { data, sheet } = clip;
    const { width, along, frames, rows, mark } = data;
    const [last, end] = [rows.length - 1, frames.length - 1];
    const places = along ? [Math.max(0, mark ?? 0), last] : fitting(data, only);
    const against = along ? last : places[0];
    const whole = clip.figure.querySelector("template").content.firstElementChild.cloneNode(true);
    const part = (name) => whole.querySelector(`[name=${name}]`);
    const [time, steps, number, toggle] = ["frame", "place", "number", "play"].map(part);
    let [frame, clock] = [end, 0];

    const over = data.over && overlay(data, whole, () => draw());
    const views = places.map(() => {
      const canvas = screen(data, "", Math.max(width, Math.min(200, width * Math.ceil(160 / width))));
      const pick = ({ offsetX, offsetY }) => over.pick(offsetX / canvas.clientWidth, offsetY / canvas.clientHeight);
      if (over) canvas.addEventListener("click", pick);
      const caption = make("figcaption");
      return { canvas, caption, figure: make("figure", {}, canvas, caption) };
    });
    whole.querySelector(".views").append(...views.map(({ figure }) => figure));
    if (part("against")) part("against").value = rows[against].name;

    function draw() {
      views.forEach(({ canvas, caption, figure }, view) => {
        const row = places[view];
        const pen = put(canvas, clip, row, frame);
        if (part("differs")?.checked && sheet.naturalWidth) markApart(canvas, clip, row, against, frame);
        over?.paint(pen, frame);
        const read = part("read")?.checked ? [make("span", {}, drawRead(data, pen, row, frame))] : [];
        caption.replaceChildren(...saidOf(clip, row), ...read);
        canvas.setAttribute("aria-label", brief(`pixel frame ${frames[frame]}: ${inWords([...caption.children])}`));
        figure.classList.toggle("best", Boolean(along) && view === 0 && row === mark);
      });
      [time.value, number.value] = [frame, `${frames[frame]} of ${frames[end]}`];
      time.setAttribute("aria-valuetext", `pixel frame ${number.value}`);
      if (!steps) return;
      steps.value = places[0];
      steps.setAttribute("aria-valuetext", rows[places[0]].name);
    }

    function play(on) {
      clearInterval(clock);
      clock = on && setInterval(() => (whole.isConnected ? go(frame + 1) : play(false)), 1000 / data.fps);
      toggle.textContent = on ? "Pause" : "Play";
    }

    function go(to) {
      frame = (to + frames.length) % frames.length;
      draw();
    }

    function step(to) {
      places[0] = to;
      draw();
    }

    function stepped(to) {
      step(to);
      if (rows[to].at) choose(rows[to].at);
    }

    const acts = {
      place: () => stepped(Number(steps.value)), frame: () => go(Number(time.value)), differs: draw, read: draw,
      commit: () => stepped(mark), play: () => play(!clock),
    };
    whole.addEventListener("input", ({ target }) => acts[target.name]?.());
    whole.addEventListener("click", ({ target }) => target.matches("button") && acts[target.name]());
    whole.addEventListener("keydown", keys({ ",": () => go(frame - 1), ".": () => go(frame + 1), p: acts.play }));
    if (along) follow(rows.flatMap(({ at }) => Object.keys(at ?? {})), () => {
      const at = rows.findIndex((row) => row.at && isChosen(row.at));
      if (at >= 0 && at !== places[0]) step(at);
    });
    matchMedia("(prefers-reduced-motion: reduce)").addEventListener("change", () => play(false));
    sheet.decode().then(draw, draw);
    draw();
    return whole;
  }

  // a cell of a grid that lies over a picture: left, top, width, height
  function cellOf(at, wide, tall, { width, height }) {
    return [((at % wide) * width) / wide, (Math.floor(at / wide) * height) / tall, width / wide, height / tall];
  }

  function frameAbout(pen, [left, top, wide, tall], colour, crossed = false) {
    const line = Math.max(1, Math.round(pen.canvas.width / 80));
    const [x, y, right, bottom] = [left + line / 2, top + line / 2, left + wide - line / 2, top + tall - line / 2];
    const cross = crossed ? `M${x} ${y}L${right} ${bottom}M${right} ${y}L${x} ${bottom}` : "";
    Object.assign(pen, { strokeStyle: colour, lineWidth: line });
    pen.stroke(new Path2D(`M${x} ${y}H${right}V${bottom}H${x}Z${cross}`));
  }

  // what the verifier reads in a frame, drawn into it, and in words
  function drawRead({ read, ...size }, pen, row, frame) {
    [...read.marks[row][frame]].forEach((mark, at) => {
      if (mark === ".") return;
      frameAbout(pen, cellOf(at, read.wide, read.tall, size), mark === "?" ? RED : YELLOW, mark === "?");
    });
    return `read in this frame: ${read.words[row][frame]}`;
  }

  // maps of tokens over the frames: of each axis one choice, linked to the page's where it has that axis
  function overlay({ over, ...size }, whole, changed) {
    const shades = Uint8Array.from(atob(over.shades), (character) => character.charCodeAt(0));
    const [frames, tall, wide] = over.shape;
    const [strongest, selects] = [whole.querySelector("[name=strongest]"), [...whole.querySelectorAll("select")]];
    const which = () => selects.reduce((sum, { length, selectedIndex }) => sum * length + selectedIndex, 0);
    const take = ({ dataset: { axis } }, text) => choose({ [axis]: text });
    for (const select of selects) select.addEventListener("change", () => take(select, select.value));
    follow(selects.map(({ dataset }) => dataset.axis), () => {
      for (const select of selects) {
        const at = [...select.options].findIndex(({ text }) => text === chosen.get(select.dataset.axis));
        if (at >= 0) select.selectedIndex = at;
      }
      changed();
    });

    function paint(pen, frame) {
      const from = (which() * frames + over.frames[frame]) * tall * wide;
      for (let cell = 0; cell < tall * wide; cell++) {
        pen.fillStyle = `rgba(${ORANGE}, ${(0.85 * shades[from + cell]) / 255})`;
        pen.fillRect(...cellOf(cell, wide, tall, size));
      }
      const [at, row, column] = over.tokens[selects[0].selectedIndex] ?? [];
      if (at === over.frames[frame]) frameAbout(pen, cellOf(row * wide + column, wide, tall, size), BLUE);
      strongest.value = `strongest: ${over.tops[which()]}`;
    }

    // the token that looks, by a place in the picture from 0 to 1
    function pick(x, y) {
      const at = over.tokens.findIndex(([, row, column]) => row === Math.floor(y * tall) && column === Math.floor(x * wide));
      if (at >= 0) take(selects[0], selects[0].options[at].text);
    }
    return { paint, pick };
  }

  // --- tables --------------------------------------------------------------------------------------------------------

  function sortable(table) {
    const [body, heads] = [table.tBodies[0], [...table.tHead.rows[0].cells]];
    const value = (cell) => cell.dataset.n ?? cell.textContent;
    const order = (a, b) => {
      if (a.dataset.n && b.dataset.n) return a.dataset.n - b.dataset.n;
      return value(a).localeCompare(value(b), "en", { numeric: true });
    };
    heads.forEach((head, place) => {
      const sort = () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        body.append(...[...body.rows].sort((a, b) => sign * order(a.cells[place], b.cells[place])));
      };
      head.replaceChildren(make("button", { type: "button", click: sort }, head.textContent));
      head.setAttribute("aria-sort", "none");
    });
  }

  // rows that have all the words, and what is picked of the columns that have choices
  function filtered(table) {
    const rows = [...table.tBodies[0].rows];
    const first = (cell) => (cell.querySelector(".check") ?? cell).textContent;
    const filter = (text, part) => make("label", { class: "filter" }, `${text} `, part);
    const [field, count] = [make("input", { type: "search" }), make("output", {}, ` ${rows.length} rows`)];
    const picks = [...table.tHead.querySelectorAll("[data-choices]")].map(({ cellIndex, textContent }) => {
      const texts = distinct(rows.map(({ cells }) => first(cells[cellIndex]))).sort();
      const select = make("select", {}, make("option", { value: "" }, "all"), ...texts.map((text) => make("option", {}, text)));
      return { label: filter(textContent, select), fits: ({ cells }) => !select.value || first(cells[cellIndex]) === select.value };
    });
    const bar = make("div", { input }, filter("Filter", field), ...picks.map(({ label }) => label), count);

    function input() {
      const words = field.value.toLowerCase().split(/\s+/);
      const said = (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
      for (const row of rows) row.hidden = !said(row) || !picks.every(({ fits }) => fits(row));
      count.value = ` ${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    }
    table.parentElement.before(bar);
  }

  // --- the page ------------------------------------------------------------------------------------------------------

  // what cannot be set up stays as it stands without scripts, and stops nothing else
  function each(where, act) {
    for (const part of document.querySelectorAll(where)) {
      try {
        act(part);
      } catch (error) {
        console.error(part.id, error);
      }
    }
  }

  each(".stage", (stage) => {
    const data = JSON.parse(stage.nextElementSibling.textContent);
    ({ maps, curves, points })[data.kind](stage, data);
    stage.hidden = false;
    if (data.kind === "curves") return;
    stage.parentElement.classList.add("explored"); // the figure as drawn steps back
    stage.parentElement.querySelector("details.twin").open = false;
  });
  each("figure.reel:has(script):has(details.all[open])", (figure) => {
    figure.querySelector("details.all").open = false;
    const show = () => figure.querySelector("figcaption").after(player(clipIn(figure)));
    const fold = figure.closest("details.one");
    if (fold) fold.addEventListener("toggle", show, { once: true });
    else show();
  });
  each("table.rows", (table) => {
    const { length } = table.tBodies[0].rows;
    if (length > 1) sortable(table);
    if (length > 5) filtered(table);
  });
  addEventListener("hashchange", read);
  addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    const to = link && document.getElementById(link.getAttribute("href").slice(1));
    const fold = to?.closest("details.one");
    if (fold) fold.open = true;
    if (!framed || !link) return;
    event.preventDefault(); // it would lead to the notebook
    to?.scrollIntoView();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !chosen.size || event.target.matches("input[type=search], select")) return; // it is theirs
    chosen.clear();
    choose({});
  });
  read();
})();
