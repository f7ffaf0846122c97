"use strict";
// What a page can do in place. Everything drawn here stands on the page without it, too: figures, frames and tables.
// Text goes in as text only; the page's policy lets nothing but this script run, and nothing be fetched.
(() => {
  const make = (tag, set = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(set)) {
      if (name === "text") element.textContent = value;
      else if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const distinct = (values) => [...new Set(values)];
  const shown = (value) => {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number" || Number.isInteger(value)) return String(value);
    return value !== 0 && Math.abs(value) < 0.01 ? value.toPrecision(2) : value.toFixed(2);
  };
  const brief = (text) => (text.length > 400 ? `${text.slice(0, 399)}…` : text); // what is read out
  const rounded = (value) => value.toFixed(2).replace(/^-(?=0\.00$)/, ""); // no -0.00
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const framed = location.protocol === "about:"; // within a notebook, whose address is not ours

  // --- what is chosen, by the name of its axis; kept in the address, so that it can be sent -------------------------------

  const chosen = new Map();
  const axes = new Set(); // that something on this page has
  const listeners = [];
  let writing = 0;

  const decoded = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };

  function read() {
    clearTimeout(writing); // the address is somebody else's now
    const asked = location.hash.slice(1).split("&").map((part) => part.split("=").map(decoded));
    const found = asked.filter(([name, value]) => axes.has(name) && value !== undefined);
    if (!found.length) return;
    chosen.clear();
    for (const [name, value] of found) chosen.set(name, value);
    tell();
  }

  function choose(address) {
    for (const [name, value] of Object.entries(address)) chosen.set(name, String(value));
    tell();
    clearTimeout(writing); // browsers refuse many changes of the address in a row
    const before = location.hash;
    writing = setTimeout(() => {
      if (location.hash !== before) return; // a link was followed meanwhile
      const parts = [...chosen].map((pair) => pair.map(encodeURIComponent).join("="));
      if (!framed) history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname);
    }, 120);
  }

  function tell() {
    for (const listener of listeners) listener();
  }

  // --- numbers of one place ------------------------------------------------------------------------------------------

  // label and value of each column but the address; low and high are the interval of the column before them
  function numbers(columns, at, address, label) {
    const out = [];
    for (const name of Object.keys(columns)) {
      const value = columns[name][at];
      if (address.includes(name) || name === "high") continue;
      if (name === "low") {
        if (value !== null && out.length) out[out.length - 1] += ` [${shown(value)}, ${shown(columns.high[at])}]`;
      } else if (value !== null) out.push(`${name === "value" || name === "mean" ? label : name} ${shown(value)}`);
    }
    return out;
  }

  // the figure as drawn steps back behind what can be explored
  function replaced(figure, ...parts) {
    figure.prepend(...parts);
    figure.classList.add("explored");
    figure.querySelector("details.twin").open = false;
  }

  // --- heat maps -----------------------------------------------------------------------------------------------------

  function colour(data, value) {
    const share = (value - data.low) / (data.high - data.low || 1);
    return data.colours[Math.round(Math.min(1, Math.max(0, share)) * (data.colours.length - 1))];
  }

  // by the contrast that WCAG asks for: on every colour white or black has 4.5
  function isDark(hex) {
    const light = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] < 0.179;
  }

  function scaleOf(data) {
    const bar = make("span", { class: "bar" });
    bar.style.background = `linear-gradient(90deg, ${data.colours.join(",")})`;
    return make("div", { class: "scale" }, `${data.label} ${shown(data.low)}`, bar, shown(data.high));
  }

  function maps(figure, data) {
    const names = [data.panel, data.y, data.x];
    const { columns } = data;
    for (const name of names) axes.add(name);
    const marked = data.reels.some((list) => list.length) ? " A mark in the corner: there are videos of it." : "";
    const hint = `Point at a cell, or move with the arrow keys, for its numbers; click or press Enter to choose it.${marked} Hatched: no value.`;
    const told = make("div", { class: "told", "aria-live": "polite", text: hint });
    const theatre = make("div");
    const cells = [];
    let open = -1;

    const address = (at) => Object.fromEntries(names.map((name) => [name, columns[name][at]]));
    const named = (axis, place) => data.names?.[axis]?.[place] ?? shown(place);
    const place = (at) => names.filter((n) => columns[n][at] !== null && columns[n][at] !== "").map((n) => `${n} ${shown(columns[n][at])}`).join(", ");
    const explain = (at) => {
      told.replaceChildren(make("b", { text: place(at) }), ...numbers(columns, at, names, data.label).map((text) => make("span", { text })));
    };

    function cell(at, wide) {
      const value = columns.value[at];
      const words = `${place(at)}: ${numbers(columns, at, names, data.label).join(", ") || "no value"}`;
      const made = make("td", {
        role: "gridcell", tabindex: -1, "aria-label": brief(words), text: wide && value !== null ? rounded(value) : "",
        mouseenter: () => explain(at), focus: () => explain(at), click: () => choose(address(at)),
      });
      if (value === null) made.classList.add("none");
      else {
        const painted = colour(data, value);
        made.style.background = painted;
        made.style.color = isDark(painted) ? "#fff" : "#000";
      }
      made.classList.toggle("seen", data.reels[at].length > 0);
      cells.push([at, made]);
      return made;
    }

    function grid(name) {
      const inside = columns[data.panel].flatMap((panel, at) => (panel === name ? [at] : []));
      const across = distinct(inside.map((at) => columns[data.x][at]));
      const up = distinct(inside.map((at) => columns[data.y][at])).reverse(); // as drawn: from below
      const where = new Map(inside.map((at) => [JSON.stringify([columns[data.y][at], columns[data.x][at]]), at]));
      const rows = up.map((y) => across.map((x) => where.get(JSON.stringify([y, x]))).map((at) => (at === undefined ? make("td", { class: "none" }) : cell(at, across.length <= 10))));
      const focusable = rows.flat().filter((made) => made.hasAttribute("role"));
      if (focusable.length) focusable[0].tabIndex = 0;
      const table = make(
        "table", { role: "grid", "aria-label": `${data.label}, ${data.panel} ${name}` }, make("caption", { text: name ?? "" }),
        ...rows.map((row, at) => make("tr", { role: "row" }, make("th", { scope: "row", text: named(data.y, up[at]) }), ...row)),
        make("tr", { role: "row" }, make("th", { text: data.corner }), ...across.map((x) => make("th", { scope: "col", text: named(data.x, x).replaceAll("_", "_\u200b") }))),
      );
      table.addEventListener("keydown", (event) => move(event, rows));
      return table;
    }

    function move(event, rows) {
      const y = rows.findIndex((row) => row.includes(event.target));
      if (y < 0) return;
      const x = rows[y].indexOf(event.target);
      const to = {
        ArrowUp: [y - 1, x], ArrowDown: [y + 1, x], ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], Home: [y, 0], End: [y, rows[y].length - 1],
      }[event.key];
      if (event.key === "Enter" || event.key === " ") event.target.click();
      else if (!to) return;
      event.preventDefault();
      const next = to && rows[to[0]]?.[to[1]];
      if (!next?.hasAttribute("role")) return;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }

    listeners.push(() => {
      let full = -1;
      for (const [at, made] of cells) {
        const same = (name) => chosen.get(name) === String(columns[name][at]);
        const asked = [data.y, data.x].filter((name) => chosen.has(name));
        const whole = names.every(same);
        made.classList.toggle("chosen", whole);
        made.setAttribute("aria-selected", whole);
        made.classList.toggle("linked", !whole && asked.length > 0 && asked.every(same));
        if (whole) full = at;
      }
      if (full >= 0) explain(full);
      if (full === open) return;
      open = full;
      theatre.replaceChildren(...(full < 0 ? [] : seen(full)));
    });

    function seen(at) {
      const ids = data.reels[at];
      const any = data.reels.some((list) => list.length);
      if (!ids.length) return any ? [make("p", { class: "muted", text: "No video of this cell is kept; of those with a corner mark there is." })] : [];
      return ids.map((id) => document.getElementById(id)).filter((from) => from?.querySelector("script")).map((from) => {
        const [content, sheet] = contents(from);
        return make("div", {}, make("p", { class: "muted", text: content.name }), player(content, sheet, address(at)));
      });
    }

    const drawn = distinct(columns[data.panel]).map(grid);
    replaced(figure, make("div", { class: "scroll" }, make("div", { class: "maps" }, ...drawn)), scaleOf(data), told, theatre);
  }

  // --- curves --------------------------------------------------------------------------------------------------------

  function curves(figure, data) {
    const { columns, along } = data;
    const places = distinct(columns[along]).filter((place) => place !== null).sort((a, b) => a - b);
    if (places.length < 2) return;
    axes.add(along);
    const told = make("div", { class: "told of-curves", "aria-live": "polite" });
    const name = make("output");
    const named = (place) => data.names[place] ?? shown(place); // of places that stand for something
    const slider = make("input", { type: "range", min: 0, max: places.length - 1, step: 1, "aria-label": `${data.label}: numbers of all curves`, input: () => choose({ [along]: places[slider.value] }) });
    function explain() {
      const here = places[slider.value];
      name.textContent = named(here);
      slider.setAttribute("aria-valuetext", `${data.label} ${named(here)}`);
      const rows = columns[along].flatMap((place, at) => (place === here ? [at] : []));
      told.replaceChildren(...rows.map((at) => {
        const of = [columns.panel[at], columns.curve[at]].filter((text) => text).join(", ");
        return make("div", {}, make("b", { text: of || "value" }), make("span", { text: numbers(columns, at, ["panel", "curve", along], "").join(", ") }));
      }));
    }
    listeners.push(() => {
      const at = places.findIndex((place) => String(place) === chosen.get(along));
      if (at < 0) return;
      slider.value = at;
      explain();
    });
    slider.value = 0;
    explain();
    const control = make("label", {}, `${data.label} `, slider, name);
    figure.querySelector("details.twin").after(make("div", { class: "controls" }, control), told);
  }

  // --- points --------------------------------------------------------------------------------------------------------

  function points(figure, data) {
    const side = 250;
    const count = data.paint.length;
    const value = (name, at) => data.columns[name].values[data.columns[name].at[at]];
    const address = (at) => Object.fromEntries(data.address.map((name) => [name, value(name, at)]));
    const belongs = (at, to) => value(data.address[0], at) === value(data.address[0], to);
    for (const name of data.address) axes.add(name);
    const told = make("div", { class: "told", "aria-live": "polite", text: "Point at a point, or move with the arrow keys; click or press Enter to choose it." });
    const [preview, theatre] = [make("div", { class: "preview" }), make("div")];
    const clips = data.reels.values.map((ids) => ids.map((id) => document.getElementById(id)).filter((from) => from?.querySelector("script")).map(contents));
    const clipsOf = (point) => clips[data.reels.at[point]];
    let [at, picked] = [0, -1];

    const panels = data.maps.map((name, map) => {
      const canvas = make("canvas", {
        role: "img", tabindex: 0, width: 2 * side, height: 2 * side, class: "points", "aria-label": `${name}: ${count} points`,
        mousemove: (event) => look(nearest(map, event)),
        click: (event) => choose(address(nearest(map, event))), focus: () => look(at),
        keydown: (event) => move(event),
      });
      return { map, canvas, whole: make("figure", {}, make("figcaption", { text: name }), canvas), pen: canvas.getContext("2d") };
    });
    const place = (map, point) => [20 + (data.x[map][point] / 1000) * (2 * side - 40), 2 * side - 20 - (data.y[map][point] / 1000) * (2 * side - 40)];

    function nearest(map, event) {
      const { left, top, width } = event.target.getBoundingClientRect();
      const [x, y] = [(event.clientX - left) * ((2 * side) / width), (event.clientY - top) * ((2 * side) / width)];
      let [best, least] = [0, Infinity];
      for (let point = 0; point < count; point++) {
        const [px, py] = place(map, point);
        const apart = (px - x) ** 2 + (py - y) ** 2;
        if (apart < least) [best, least] = [point, apart];
      }
      return best;
    }

    function dot(pen, map, point, radius, colour) {
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(...place(map, point), radius, 0, 7);
      pen.fill();
    }

    const colourOf = (point) => (data.paint[point] < 0 ? "#8a8c96" : data.colours[data.paint[point]]);
    function draw() {
      const mark = getComputedStyle(document.body).getPropertyValue("--sel");
      for (const { map, pen } of panels) {
        pen.clearRect(0, 0, 2 * side, 2 * side);
        for (let point = 0; point < count; point++) dot(pen, map, point, 4, colourOf(point));
        for (const shown of picked >= 0 && picked !== at ? [picked, at] : [at]) {
          pen.strokeStyle = mark;
          pen.lineWidth = 2;
          pen.beginPath();
          const together = data.paint.map((_, point) => point).filter((point) => belongs(point, shown));
          if (data.joined) for (const point of together) pen.lineTo(...place(map, point));
          pen.stroke();
          for (const point of together) {
            dot(pen, map, point, 7, mark);
            dot(pen, map, point, 5, colourOf(point));
          }
          dot(pen, map, shown, 10, mark);
          dot(pen, map, shown, 6, colourOf(shown));
        }
      }
    }

    function look(point) {
      at = point;
      const words = Object.keys(data.columns).filter((name) => value(name, at) !== null).map((name) => `${name} ${shown(value(name, at))}`);
      told.replaceChildren(...words.map((text) => make("span", { text })));
      for (const { map, canvas } of panels) canvas.setAttribute("aria-label", brief(`${data.maps[map]}: ${words.join(", ")}`));
      const glimpses = clipsOf(at).flatMap(([content, sheet]) => glimpse(content, sheet, address(at)));
      preview.replaceChildren(...(glimpses.length ? glimpses : [make("span", { class: "muted", text: "No clip of this point is kept." })]));
      draw();
    }

    function move(event) {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Enter" || event.key === " ") choose(address(at));
      else if (event.key === "Home" || event.key === "End") look(event.key === "Home" ? 0 : count - 1);
      else if (by) look((at + by + count) % count);
      else return;
      event.preventDefault();
    }

    listeners.push(() => {
      const whole = (point) => data.address.every((name) => chosen.get(name) === String(value(name, point)));
      const now = data.paint.findIndex((_, point) => whole(point));
      if (now === picked) return;
      picked = now;
      theatre.replaceChildren(...(now < 0 ? [] : clipsOf(now).map(([content, sheet]) => player(content, sheet, address(now)))));
      if (now >= 0) look(now);
      else draw();
    });
    const names = data.legend.map((text, k) => {
      const key = make("span", { class: "key" });
      key.style.background = data.colours[k];
      return make("span", {}, key, text);
    });
    const legend = data.scale ? scaleOf({ colours: data.colours, label: data.label, low: Number(data.legend[0]), high: Number(data.legend[1]) }) : make("div", { class: "scale" }, `${data.label}: `, ...names);
    replaced(figure, make("div", { class: "maps" }, ...panels.map(({ whole }) => whole)), legend, told, preview, theatre);
    draw();
  }

  // --- players -------------------------------------------------------------------------------------------------------

  const contents = (figure) => [JSON.parse(figure.querySelector("script").textContent), figure.querySelector("img.sheet")];
  const APART = 48; // of 255, in any colour, from which on a pixel counts as different

  function fitting(data, only) {
    const fits = (row) => !row.at || !only || Object.entries(row.at).every(([name, value]) => String(only[name] ?? value) === String(value));
    return data.rows.map((_, at) => at).filter((at) => fits(data.rows[at]));
  }

  // The last frame of the first clip of a place, and what is said of it.
  function glimpse(data, sheet, only) {
    const row = fitting(data, only)[0];
    if (row === undefined) return [];
    const canvas = make("canvas", { role: "img", width: data.width, height: data.height, "aria-label": data.rows[row].name });
    canvas.style.width = "144px";
    canvas.getContext("2d").drawImage(sheet, (data.frames.length - 1) * data.width, row * data.height, data.width, data.height, 0, 0, data.width, data.height);
    return [make("figure", {}, canvas, make("figcaption", { text: said(data.rows[row]).join(", ") }))];
  }

  const said = (row) => [row.name, ...Object.entries(row.told ?? {}).map(([name, value]) => `${name}: ${shown(value)}`)];

  // One row beside the last one, along steps; or all rows that are no cell's, and those of the cell in ``only``.
  function player(data, sheet, only) {
    const last = data.rows.length - 1;
    const rows = data.along ? [Math.max(0, data.mark ?? 0), last] : fitting(data, only);
    let frame = data.frames.length - 1;
    let marking = false;
    let clock = 0;

    const over = data.over && overlay(data, () => draw());
    const views = rows.map(() => {
      const canvas = make("canvas", { role: "img", width: data.width, height: data.height });
      if (over) canvas.addEventListener("click", ({ offsetX, offsetY }) => over.pick(offsetX / canvas.clientWidth, offsetY / canvas.clientHeight));
      canvas.style.width = `${Math.max(data.width, Math.min(200, data.width * Math.ceil(160 / data.width)))}px`;
      const caption = make("figcaption");
      return { canvas, caption, whole: make("figure", {}, canvas, caption), pen: canvas.getContext("2d", { willReadFrequently: true }) };
    });

    const pixels = (pen, row) => {
      pen.drawImage(sheet, frame * data.width, row * data.height, data.width, data.height, 0, 0, data.width, data.height);
      return pen.getImageData(0, 0, data.width, data.height);
    };

    function mark(pen, row) {
      const base = pixels(pen, data.along ? last : rows[0]).data;
      const own = pixels(pen, row);
      for (let at = 0; at < own.data.length; at += 4) {
        const apart = [0, 1, 2].some((c) => Math.abs(own.data[at + c] - base[at + c]) > APART);
        for (let c = 0; c < 3; c++) own.data[at + c] = apart ? [230, 80, 0][c] : 0.35 * own.data[at + c] + 0.65 * 255;
      }
      pen.putImageData(own, 0, 0);
    }

    function draw() {
      views.forEach(({ canvas, caption, whole, pen }, place) => {
        const row = data.rows[rows[place]];
        if (sheet.naturalWidth) marking ? mark(pen, rows[place]) : pixels(pen, rows[place]);
        over?.paint(pen, frame);
        const words = [...said(row), ...(reader?.checked ? frameRead(data, pen, rows[place], frame) : [])];
        caption.replaceChildren(make("b", { text: words[0] }), ...words.slice(1).flatMap((text) => [make("br"), text]), ...bars(row.bars));
        canvas.setAttribute("aria-label", brief(`pixel frame ${data.frames[frame]}: ${words.join(", ")}`));
        whole.classList.toggle("best", Boolean(data.along) && place === 0 && rows[0] === data.mark);
      });
      frames.value = frame;
      number.textContent = `${data.frames[frame]} of ${data.frames[data.frames.length - 1]}`;
      frames.setAttribute("aria-valuetext", `pixel frame ${number.textContent}`);
      if (steps) steps.value = rows[0];
      if (steps) steps.setAttribute("aria-valuetext", data.rows[rows[0]].name);
    }

    function play(on) {
      clearInterval(clock);
      clock = 0;
      if (on) clock = setInterval(() => (whole.isConnected ? go(frame + 1) : play(false)), 1000 / data.fps);
      button.textContent = on ? "Pause" : "Play";
    }

    function go(to) {
      frame = (to + data.frames.length) % data.frames.length;
      draw();
    }

    function step(to, said) {
      rows[0] = Math.min(last, Math.max(0, to));
      draw();
      if (said && data.rows[rows[0]].at) choose(data.rows[rows[0]].at);
    }

    const button = make("button", { type: "button", text: "Play", click: () => play(!clock) });
    const number = make("output");
    const frames = make("input", { type: "range", min: 0, max: data.frames.length - 1, "aria-label": "pixel frame", input: () => go(Number(frames.value)) });
    const steps = data.along ? make("input", { type: "range", min: 0, max: last, "aria-label": data.along, input: () => step(Number(steps.value), true) }) : null;
    const against = data.along ? data.rows[last].name : data.rows[rows[0]].name;
    const marker = make("input", { type: "checkbox", change: () => { marking = marker.checked; draw(); } });
    const reader = data.read && make("input", { type: "checkbox", checked: true, change: () => draw() });
    const controls = make("div", { class: "controls" }, ...(over?.controls ?? []));
    if (steps) controls.append(make("label", {}, `${data.along} `, steps));
    if (steps && data.mark !== null) controls.append(make("button", { type: "button", text: `To the commit ${data.along}`, click: () => step(data.mark, true) }));
    controls.append(make("label", {}, "frame ", frames, number), button);
    if (last > 0) controls.append(make("label", {}, marker, `mark what differs from: ${against}`));
    if (reader) controls.append(make("label", {}, reader, "draw what is read: framed, what was not there at first; crossed, what cannot be read"));
    const whole = make("div", { class: "player", role: "group", "aria-label": `player: ${data.name}` }, make("div", { class: "views" }, ...views.map((view) => view.whole)), controls);
    whole.addEventListener("keydown", (event) => {
      const act = { ",": () => go(frame - 1), ".": () => go(frame + 1), p: () => play(!clock) }[event.key];
      if (act) act();
    });
    if (steps) {
      listeners.push(() => {
        const at = data.rows.findIndex((row) => row.at && Object.entries(row.at).every(([name, value]) => chosen.get(name) === String(value)));
        if (at >= 0 && at !== rows[0]) step(at, false);
      });
      for (const row of data.rows) Object.keys(row.at ?? {}).forEach((name) => axes.add(name));
    }
    still.addEventListener("change", () => play(false));
    sheet.decode().then(draw, draw);
    draw();
    return whole;
  }

  // What the verifier reads in a frame, drawn into it, and in words.
  function frameRead({ read, width, height }, pen, row, frame) {
    const counts = {};
    const [wide, tall] = [width / read.wide, height / read.tall];
    pen.lineWidth = Math.max(1, Math.round(width / 80));
    [...read.marks[row][frame]].forEach((mark, at) => {
      if (mark === ".") return;
      const name = read.names[mark] ?? "cannot be read";
      counts[name] = (counts[name] ?? 0) + 1;
      const inset = pen.lineWidth / 2;
      const [left, top] = [(at % read.wide) * wide + inset, Math.floor(at / read.wide) * tall + inset];
      const [right, bottom] = [left + wide - 2 * inset, top + tall - 2 * inset];
      pen.strokeStyle = mark === "?" ? "#d00000" : "#ffe100";
      pen.beginPath();
      pen.rect(left, top, right - left, bottom - top);
      if (mark === "?") for (const [from, to] of [[left, right], [right, left]]) { pen.moveTo(from, top); pen.lineTo(to, bottom); }
      pen.stroke();
    });
    const words = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
    return [`read in this frame: ${words.join(", ") || "nothing new"}`];
  }

  // Maps of tokens over the frames: of each axis one choice, linked to the page's where it has that axis.
  function overlay({ over, width, height }, changed) {
    const shades = Uint8Array.from(atob(over.shades), (character) => character.charCodeAt(0));
    const [frames, tall, wide] = over.shape;
    const names = Object.keys(over.axes);
    const picked = names.map(() => 0);
    const which = () => picked.reduce((sum, at, axis) => sum * over.axes[names[axis]].length + at, 0);
    const strength = make("output");
    const selects = names.map((name, axis) => {
      axes.add(name);
      const select = make("select", { change: () => { picked[axis] = select.selectedIndex; choose({ [name]: over.axes[name][picked[axis]] }); changed(); } });
      select.append(...over.axes[name].map((text) => make("option", { value: text, text })));
      return select;
    });
    listeners.push(() => {
      names.forEach((name, axis) => {
        const at = over.axes[name].indexOf(chosen.get(name));
        if (at >= 0) selects[axis].selectedIndex = picked[axis] = at;
      });
      changed();
    });
    function paint(pen, frame) {
      const from = (which() * frames + over.frames[frame]) * tall * wide;
      for (let cell = 0; cell < tall * wide; cell++) {
        pen.fillStyle = `rgba(230, 80, 0, ${(0.85 * shades[from + cell]) / 255})`;
        const [left, top] = [((cell % wide) * width) / wide, (Math.floor(cell / wide) * height) / tall];
        pen.fillRect(left, top, width / wide, height / tall);
      }
      const [at, row, col] = over.tokens[picked[0]] ?? [];
      pen.strokeStyle = "#0b5cad";
      pen.lineWidth = Math.max(1, Math.round(width / 80));
      if (at === over.frames[frame]) pen.strokeRect((col * width) / wide + 0.5, (row * height) / tall + 0.5, width / wide - 1, height / tall - 1);
      strength.textContent = `strongest: ${shown(over.tops[which()])}`;
    }
    // the token that looks, by a place in the picture from 0 to 1
    function pick(x, y) {
      const at = over.tokens.findIndex(([, row, col]) => row === Math.floor(y * tall) && col === Math.floor(x * wide));
      if (at < 0) return;
      selects[0].selectedIndex = at;
      selects[0].dispatchEvent(new Event("change"));
    }
    return { paint, pick, controls: [...names.map((name, axis) => make("label", {}, `${name} `, selects[axis])), strength] };
  }

  function bars(weights) {
    return Object.entries(weights ?? {}).flatMap(([name, share]) => {
      const bar = make("span", { class: "bar-of" });
      bar.style.width = `${Math.round(80 * Math.max(0, share))}px`;
      return [make("br"), bar, ` ${name} ${shown(share)}`];
    });
  }

  // --- tables --------------------------------------------------------------------------------------------------------

  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = make("button", { type: "button", text: head.textContent });
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.setAttribute("aria-sort", other === head ? (down ? "descending" : "ascending") : "none");
        const value = (row) => row.cells[place].dataset.n ?? row.cells[place].textContent;
        const order = (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
        const exact = (a, b) => (a.cells[place].dataset.n && b.cells[place].dataset.n ? value(a) - value(b) : order(a, b));
        body.append(...[...body.rows].sort((a, b) => (down ? -exact(a, b) : exact(a, b))));
      });
    });
  }

  function filtered(table) {
    const rows = [...table.tBodies[0].rows];
    const count = make("output", { text: ` ${rows.length} rows` });
    const field = make("input", { type: "search", input: () => pick() });
    const choices = [...table.tHead.rows[0].cells].filter((head) => "choices" in head.dataset).map((head) => choice(head, rows, pick));
    function pick() {
      const words = field.value.toLowerCase().split(/\s+/).filter((word) => word);
      for (const row of rows) {
        const said = words.every((word) => row.textContent.toLowerCase().includes(word));
        row.hidden = !said || !choices.every(({ fits }) => fits(row));
      }
      count.textContent = ` ${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    }
    table.parentElement.before(make("label", { class: "filter" }, "Filter ", field), ...choices.map(({ label }) => label), count);
  }

  // one value of a column, of those that it has; the first line of a cell is its value
  function choice(head, rows, picked) {
    const value = (row) => (row.cells[head.cellIndex].querySelector(".check") ?? row.cells[head.cellIndex]).textContent;
    const options = distinct(rows.map(value)).sort().map((text) => make("option", { value: text, text }));
    const select = make("select", { change: picked }, make("option", { value: "", text: "all" }), ...options);
    return { label: make("label", { class: "filter" }, `${head.textContent} `, select), fits: (row) => !select.value || value(row) === select.value };
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

  each("figure.drawn", (figure) => {
    const held = figure.querySelector("script");
    const data = held && JSON.parse(held.textContent);
    if (data) ({ maps, curves, points })[data.kind](figure, data);
  });
  each("figure.reel", (figure) => {
    if (!figure.querySelector("script")) return;
    figure.querySelector("details.all").open = false;
    const [content, sheet] = contents(figure);
    const show = () => figure.querySelector("figcaption").after(player(content, sheet));
    const fold = figure.closest("details.one");
    if (fold) fold.addEventListener("toggle", show, { once: true });
    else if (!content.looked) show();
  });
  each("table.rows", (table) => {
    if (table.tBodies[0].rows.length < 2) return;
    sortable(table);
    if (table.tBodies[0].rows.length > 5) filtered(table);
  });
  if (document.querySelector(".beside")) {
    const box = make("input", { type: "checkbox", checked: true, change: () => document.body.classList.toggle("plain", !box.checked) });
    document.querySelector("header").append(make("label", { class: "switch" }, box, " controls and twins"));
  }
  let closed = []; // that are open for print only
  const open = (on) => closed.forEach((part) => (part.open = on));
  addEventListener("beforeprint", () => {
    closed = [...closed, ...document.querySelectorAll(":is(details.twin, details.one, details.all, details.rule):not([open])")];
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
