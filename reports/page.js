"use strict";
// What a page can do in place. Everything drawn here stands on the page without it, too: figures, frames and tables.
// Text goes in as text only; the page's policy lets nothing but this script run, and nothing be fetched.
(() => {
  // an element with attributes, listeners (functions) and children
  function make(tag, set = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(set)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  const muted = (text) => make("p", { class: "muted" }, text);
  const button = (text, click) => make("button", { type: "button", click }, text);
  const options = (texts) => texts.map((text) => make("option", { value: text }, text));

  function slider(label, last, to) {
    const input = ({ target }) => to(Number(target.value));
    return make("input", { type: "range", min: 0, max: last, value: 0, "aria-label": label, input });
  }

  function box(text, checked, to) {
    return make("label", {}, make("input", { type: "checkbox", checked, change: ({ target }) => to(target.checked) }), text);
  }

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

  function maps(stage, data) {
    const [line, theatre] = [stage.querySelector(".told"), stage.querySelector(".theatre")];
    const any = data.reels.some((ids) => ids.length);
    let open = null;

    const cells = [...stage.querySelectorAll("[role=gridcell]")].map((td, at) => {
      const address = Object.fromEntries(data.axes.map((name, axis) => [name, data.at[at][axis]]));
      const explain = () => line.replaceChildren(td.getAttribute("aria-label"));
      td.addEventListener("mouseenter", explain);
      td.addEventListener("focus", explain);
      td.addEventListener("click", () => choose(address));
      return { td, address, explain, reels: data.reels[at] };
    });

    function moves(table) {
      const to = (place) => ({ target }) => {
        const [row, column] = place(target.parentElement.rowIndex, target.cellIndex);
        const next = table.rows[row]?.cells[column];
        if (!next?.hasAttribute("role")) return;
        target.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      };
      const pick = ({ target }) => target.click();
      return keys({
        ArrowUp: to((row, column) => [row - 1, column]), ArrowDown: to((row, column) => [row + 1, column]),
        ArrowLeft: to((row, column) => [row, column - 1]), ArrowRight: to((row, column) => [row, column + 1]),
        Home: to((row) => [row, 1]), End: to((row) => [row, table.rows[row].cells.length - 1]), Enter: pick, " ": pick,
      });
    }
    for (const table of stage.querySelectorAll("table")) {
      table.addEventListener("keydown", moves(table));
      const first = table.querySelector("[role=gridcell]");
      if (first) first.tabIndex = 0;
    }

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

  function curves(stage, { along, places }) {
    const [place, name, line] = [stage.querySelector("input"), stage.querySelector("output"), stage.querySelector(".told")];
    function explain(at) {
      place.value = at;
      name.textContent = places[at].name;
      place.setAttribute("aria-valuetext", `${along} ${places[at].name}`);
      line.replaceChildren(...places[at].rows.map(([of, words]) => make("div", {}, make("b", {}, of), words)));
    }
    follow([along], () => {
      const at = places.findIndex((one) => isChosen({ [along]: one.at }));
      if (at >= 0) explain(at);
    });
    place.addEventListener("input", () => choose({ [along]: places[place.value].at }));
    explain(0);
  }

  function points(stage, data) {
    const [panels, line, preview, theatre] = [".maps", ".told", ".preview", ".theatre"].map((part) => stage.querySelector(part));
    const [side, edge, count] = [500, 20, data.paint.length]; // canvas pixels, two a pixel of the page
    const of = ({ values, at }, point) => values[at[point]];
    const columns = Object.entries(data.address);
    const address = (point) => Object.fromEntries(columns.map(([name, column]) => [name, of(column, point)]));
    const group = (point) => of(columns[0][1], point); // what belongs together
    const clips = { ...data.reels, values: data.reels.values.map(clipsOf) };
    const scaled = (thousandths) => edge + (thousandths / 1000) * (side - 2 * edge);
    const spots = data.x.map((xs, map) => xs.map((x, point) => [scaled(x), side - scaled(data.y[map][point])]));
    let [at, picked] = [0, -1];

    function nearest(map, { target, clientX, clientY }) {
      const { left, top, width } = target.getBoundingClientRect();
      const [x, y] = [((clientX - left) * side) / width, ((clientY - top) * side) / width];
      const apart = spots[map].map((spot) => (spot[0] - x) ** 2 + (spot[1] - y) ** 2);
      return apart.reduce((best, one, point) => (one < apart[best] ? point : best), 0);
    }

    const by = (move) => () => look((at + move + count) % count);
    const pick = (point) => choose(address(point));
    const keydown = keys({
      ArrowRight: by(1), ArrowDown: by(1), ArrowLeft: by(-1), ArrowUp: by(-1),
      Home: () => look(0), End: () => look(count - 1), Enter: () => pick(at), " ": () => pick(at),
    });
    const canvases = data.maps.map((name, map) => make("canvas", {
      role: "img", tabindex: 0, width: side, height: side, class: "points", "aria-label": `${name}: ${count} points`, keydown,
      focus: () => look(at), mousemove: (event) => look(nearest(map, event)), click: (event) => pick(nearest(map, event)),
    }));

    function paint(canvas, map) {
      const [pen, mark] = [canvas.getContext("2d"), getComputedStyle(document.body).getPropertyValue("--sel")];
      const dot = (point, radius, colour = data.paint[point]) => {
        pen.fillStyle = colour;
        pen.beginPath();
        pen.arc(...spots[map][point], radius, 0, 7);
        pen.fill();
      };
      const ringed = (point, radius, ring) => {
        dot(point, radius + ring, mark);
        dot(point, radius);
      };
      pen.clearRect(0, 0, side, side);
      data.paint.forEach((_, point) => dot(point, 4));
      for (const one of distinct([picked, at]).filter((point) => point >= 0)) {
        const together = data.paint.flatMap((_, point) => (group(point) === group(one) ? [point] : []));
        Object.assign(pen, { strokeStyle: mark, lineWidth: 2 });
        pen.beginPath();
        if (data.joined) for (const point of together) pen.lineTo(...spots[map][point]);
        pen.stroke();
        for (const point of together) ringed(point, 5, 2);
        ringed(one, 6, 4);
      }
    }

    function look(point) {
      at = point;
      const words = data.told.map((column) => of(column, at)).filter((text) => text !== null);
      line.replaceChildren(...words.map((text) => make("span", {}, text)));
      canvases.forEach((canvas, map) => canvas.setAttribute("aria-label", brief(`${data.maps[map]}: ${words.join(", ")}`)));
      const glimpses = of(clips, at).flatMap((clip) => glimpse(clip, address(at)));
      preview.replaceChildren(...(glimpses.length ? glimpses : [muted("No clip of this point is kept.")]));
      canvases.forEach(paint);
    }

    follow(Object.keys(data.address), () => {
      const now = data.paint.findIndex((_, point) => isChosen(address(point)));
      if (now === picked) return;
      picked = now;
      theatre.replaceChildren(...(now < 0 ? [] : of(clips, now).map((clip) => player(clip, address(now)))));
      if (now >= 0) look(now);
      else canvases.forEach(paint);
    });
    panels.append(...canvases.map((canvas, map) => make("figure", {}, make("figcaption", {}, data.maps[map]), canvas)));
    canvases.forEach(paint);
  }

  // --- clips ---------------------------------------------------------------------------------------------------------

  const APART = 48; // of 255, in any colour, from which on a pixel counts as different
  const [ORANGE, BLUE, RED, YELLOW] = [[230, 80, 0], "#0b5cad", "#d00000", "#ffe100"];

  function clipIn(figure) {
    const held = figure?.querySelector("script");
    return held && { data: JSON.parse(held.textContent), sheet: figure.querySelector("img.sheet") };
  }
  const saidOf = ({ name, told }) => [name, ...Object.entries(told).map(([of, words]) => `${of}: ${words}`)];
  const clipsOf = (ids) => ids.map((id) => clipIn(document.getElementById(id))).filter((clip) => clip);

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
    const row = clip.data.rows[fitting(clip.data, only)[0]];
    if (!row) return [];
    const canvas = screen(clip.data, row.name, 144);
    put(canvas, clip, clip.data.rows.indexOf(row), clip.data.frames.length - 1);
    return [make("figure", {}, canvas, make("figcaption", {}, saidOf(row).join(", ")))];
  }

  // one row beside the last one, along steps; or all rows that fit a place
  function player(clip, only) {
    const { data, sheet } = clip;
    const { width, height, along, frames, rows } = data;
    const [last, end] = [rows.length - 1, frames.length - 1];
    const places = along ? [Math.max(0, data.mark ?? 0), last] : fitting(data, only);
    const against = along ? last : places[0];
    let [frame, marking, reading, clock] = [end, false, Boolean(data.read), 0];

    const over = data.over && overlay(data, () => draw());
    const views = places.map(() => {
      const canvas = screen(data, "", Math.max(width, Math.min(200, width * Math.ceil(160 / width))));
      const look = ({ offsetX, offsetY }) => over.pick(offsetX / canvas.clientWidth, offsetY / canvas.clientHeight);
      if (over) canvas.addEventListener("click", look);
      const caption = make("figcaption");
      return { canvas, caption, figure: make("figure", {}, canvas, caption) };
    });

    // what differs from another row in orange, the rest pale
    function mark(canvas, row) {
      const pixels = (of) => put(canvas, clip, of, frame).getImageData(0, 0, width, height);
      const [base, own] = [pixels(against).data, pixels(row)];
      for (let at = 0; at < base.length; at += 4) {
        const apart = [0, 1, 2].some((c) => Math.abs(own.data[at + c] - base[at + c]) > APART);
        for (let c = 0; c < 3; c++) own.data[at + c] = apart ? ORANGE[c] : 0.35 * own.data[at + c] + 0.65 * 255;
      }
      canvas.getContext("2d").putImageData(own, 0, 0);
    }

    function draw() {
      views.forEach(({ canvas, caption, figure }, view) => {
        const row = rows[places[view]];
        const pen = put(canvas, clip, places[view], frame);
        if (marking && sheet.naturalWidth) mark(canvas, places[view]);
        over?.paint(pen, frame);
        const words = [...saidOf(row), ...(reading ? [frameRead(data, pen, places[view], frame)] : [])];
        const lines = words.slice(1).flatMap((text) => [make("br"), text]);
        caption.replaceChildren(make("b", {}, row.name), ...lines, ...bars(row.bars));
        canvas.setAttribute("aria-label", brief(`pixel frame ${frames[frame]}: ${words.join(", ")}`));
        figure.classList.toggle("best", Boolean(along) && view === 0 && places[0] === data.mark);
      });
      [time.value, steps.value] = [frame, places[0]];
      number.textContent = `${frames[frame]} of ${frames[end]}`;
      time.setAttribute("aria-valuetext", `pixel frame ${number.textContent}`);
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

    const stepped = (to) => {
      step(to);
      if (rows[to].at) choose(rows[to].at);
    };
    const toggle = button("Play", () => play(!clock));
    const [number, time, steps] = [make("output"), slider("pixel frame", end, go), slider(along, last, stepped)];
    const controls = make("div", { class: "controls" }, ...(over?.controls ?? []));
    if (along) controls.append(make("label", {}, `${along} `, steps));
    if (along && data.mark !== null) controls.append(button(`To the commit ${along}`, () => stepped(data.mark)));
    controls.append(make("label", {}, "frame ", time, number), toggle);
    const differs = `mark what differs from: ${rows[against].name}`;
    if (last > 0) controls.append(box(differs, false, (on) => { marking = on; draw(); }));
    const read = "draw what is read: framed, what was not there at first; crossed, what cannot be read";
    if (data.unread) controls.append(muted(data.unread));
    if (data.read) controls.append(box(read, true, (on) => { reading = on; draw(); }));
    const keydown = keys({ ",": () => go(frame - 1), ".": () => go(frame + 1), p: () => play(!clock) });
    const shown = make("div", { class: "views" }, ...views.map(({ figure }) => figure));
    const whole = make("div", { class: "player", role: "group", "aria-label": `player: ${data.name}`, keydown }, shown, controls);
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
    Object.assign(pen, { strokeStyle: colour, lineWidth: line });
    const [right, bottom] = [left + wide - line / 2, top + tall - line / 2];
    pen.beginPath();
    pen.rect(left + line / 2, top + line / 2, wide - line, tall - line);
    for (const [from, to] of crossed ? [[left + line / 2, right], [right, left + line / 2]] : []) {
      pen.moveTo(from, top + line / 2);
      pen.lineTo(to, bottom);
    }
    pen.stroke();
  }

  // what the verifier reads in a frame, drawn into it, and in words
  function frameRead({ read, ...size }, pen, row, frame) {
    const counts = {};
    [...read.marks[row][frame]].forEach((mark, at) => {
      if (mark === ".") return;
      const name = read.names[mark] ?? "cannot be read";
      counts[name] = (counts[name] ?? 0) + 1;
      frameAbout(pen, cellOf(at, read.wide, read.tall, size), mark === "?" ? RED : YELLOW, mark === "?");
    });
    const words = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
    return `read in this frame: ${words.join(", ") || "nothing new"}`;
  }

  // maps of tokens over the frames: of each axis one choice, linked to the page's where it has that axis
  function overlay({ over, ...size }, changed) {
    const shades = Uint8Array.from(atob(over.shades), (character) => character.charCodeAt(0));
    const [frames, tall, wide] = over.shape;
    const lists = Object.entries(over.axes);
    const strength = make("output");
    const change = ({ target }) => choose({ [target.name]: target.value });
    const selects = lists.map(([name, texts]) => make("select", { name, change }, ...options(texts)));
    const which = () => selects.reduce((sum, select, axis) => sum * lists[axis][1].length + select.selectedIndex, 0);
    follow(Object.keys(over.axes), () => {
      lists.forEach(([name, texts], axis) => {
        const at = texts.indexOf(chosen.get(name));
        if (at >= 0) selects[axis].selectedIndex = at;
      });
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
      strength.textContent = `strongest: ${over.tops[which()]}`;
    }

    // the token that looks, by a place in the picture from 0 to 1
    function pick(x, y) {
      const at = over.tokens.findIndex(([, row, column]) => row === Math.floor(y * tall) && column === Math.floor(x * wide));
      if (at >= 0) choose({ [lists[0][0]]: lists[0][1][at] });
    }
    return { paint, pick, controls: [...lists.map(([name], axis) => make("label", {}, `${name} `, selects[axis])), strength] };
  }

  function bars(weights) {
    return Object.entries(weights).flatMap(([name, share]) => {
      const bar = make("span", { class: "bar-of" });
      bar.style.width = `${Math.round(80 * Math.max(0, share))}px`;
      return [make("br"), bar, ` ${name} ${share.toFixed(2)}`];
    });
  }

  // --- tables --------------------------------------------------------------------------------------------------------

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const value = (row) => row.cells[place].dataset.n ?? row.cells[place].textContent;
      const order = (a, b) => {
        const numbers = a.cells[place].dataset.n && b.cells[place].dataset.n;
        return numbers ? value(a) - value(b) : value(a).localeCompare(value(b), "en", { numeric: true });
      };
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
      };
      head.replaceChildren(button(head.textContent, sort));
      head.setAttribute("aria-sort", "none");
    });
  }

  function filtered(table) {
    const rows = [...table.tBodies[0].rows];
    const count = make("output", {}, ` ${rows.length} rows`);
    const field = make("input", { type: "search", input: () => pick() });
    const choices = [...table.tHead.rows[0].cells].filter((head) => "choices" in head.dataset).map((head) => {
      const first = ({ cells }) => (cells[head.cellIndex].querySelector(".check") ?? cells[head.cellIndex]).textContent;
      const all = make("option", { value: "" }, "all");
      const select = make("select", { change: () => pick() }, all, ...options(distinct(rows.map(first)).sort()));
      const label = make("label", { class: "filter" }, `${head.textContent} `, select);
      return { label, fits: (row) => !select.value || first(row) === select.value };
    });

    function pick() {
      const words = field.value.toLowerCase().split(/\s+/);
      const said = (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
      for (const row of rows) row.hidden = !said(row) || !choices.every(({ fits }) => fits(row));
      count.textContent = ` ${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    }
    table.parentElement.before(make("label", { class: "filter" }, "Filter ", field), ...choices.map(({ label }) => label), count);
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
  each("figure.reel:has(script)", (figure) => {
    figure.querySelector("details.all").open = false;
    const clip = clipIn(figure);
    const show = () => figure.querySelector("figcaption").after(player(clip));
    const fold = figure.closest("details.one");
    if (fold) fold.addEventListener("toggle", show, { once: true });
    else if (!clip.data.looked) show();
  });
  each("table.rows", (table) => {
    const { length } = table.tBodies[0].rows;
    if (length > 1) sortable(table);
    if (length > 5) filtered(table);
  });
  if (document.querySelector(".beside")) {
    const control = box(" controls and twins", true, (on) => document.body.classList.toggle("plain", !on));
    control.classList.add("switch");
    document.querySelector("header").append(control);
  }
  let closed = []; // that are open for print only
  const open = (on) => closed.forEach((part) => (part.open = on));
  addEventListener("beforeprint", () => {
    closed.push(...document.querySelectorAll(":is(details.twin, details.one, details.all, details.rule):not([open])"));
    open(true);
  });
  addEventListener("afterprint", () => {
    open(false);
    closed = [];
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
