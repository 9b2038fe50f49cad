"use strict";
// The image viewer. Legend: cubes are [S, H, W] in one array each; x is a column, y a row of the
// window. Its state is band, x, y, gain and case, which the page's address can name:
// #band=12&x=10&y=20&gain=5&case=1.
(() => {
  const source = document.getElementById("window-data");
  if (!source) return;
  const GAINS = [1, 2, 5, 10, 20, 50, 100, 200];
  const DASHES = ["none", "7 3", "9 3 2 3", "2 3", "14 3", "9 3 2 3 2 3"];
  const data = JSON.parse(source.textContent);
  const { height, width, bands, steps } = data;
  const pixels = height * width;
  const get = (id) => document.getElementById(id);

  const decode = (text) => {
    const letters = atob(text);
    const values = new Uint16Array(letters.length / 2);
    for (let i = 0; i < values.length; i++) {
      values[i] = letters.charCodeAt(2 * i) | (letters.charCodeAt(2 * i + 1) << 8);
    }
    return values;
  };
  const cubes = data.cubes.map((one) => ({ ...one, values: decode(one.data) }));
  const reference = cubes.find((cube) => cube.kind === "reference");
  const cases = cubes.filter((cube) => cube.kind === "fused");
  const compared = cubes.filter((cube) => cube !== reference);
  compared.forEach((cube, i) => {
    // As many colours as dashes: all pairs come before one comes again.
    const round = Math.floor(i / DASHES.length);
    cube.look = `c${i % DASHES.length}`;
    cube.dash = DASHES[(i + round) % DASHES.length];
  });
  const state = { band: bands >> 1, x: width >> 1, y: height >> 1, gain: 0, case: 0 };

  const make = (name, parent, attributes = {}, text = "") => {
    const space = parent instanceof SVGElement || name === "svg";
    const node = space
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return parent.appendChild(node);
  };
  const spectrum = (cube) => {
    const first = state.y * width + state.x;
    return Float64Array.from({ length: bands }, (_, s) => cube.values[s * pixels + first]);
  };
  const bandName = (band) =>
    data.wavelengths_nm ? `${+data.wavelengths_nm[band].toFixed(1)} nm` : `band ${band + 1}`;

  // The pictures of a band share one scale, which few pixels leave.
  const whites = new Map();
  const white = () => {
    if (!whites.has(state.band)) {
      const first = state.band * pixels;
      const sorted = (reference || cubes[0]).values.slice(first, first + pixels).sort();
      whites.set(state.band, sorted[Math.floor(0.995 * (pixels - 1))] || 1);
    }
    return whites.get(state.band);
  };
  const grey = (share) => {
    const level = 255 * Math.min(1, share) ** (1 / 2.2);
    return [level, level, level];
  };
  const mapped = (share) => {
    const i = 3 * Math.round(255 * Math.min(1, share));
    return data.map.slice(i, i + 3);
  };
  const TABLES = [grey, mapped].map((colour) =>
    Array.from({ length: 4097 }, (_, i) => colour(i / 4096)));
  const paint = (canvas, table, shareAt) => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < canvas.width * canvas.height; i++) {
      const colour = table[Math.round(4096 * Math.min(1, shareAt(i)))];
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = colour[c];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  };

  const picture = (cube, what, parent) => {
    const box = make("div", parent, { class: "picture" });
    const canvas = make("canvas", box, { width, height, role: "application" });
    // Every place can be reached by keyboard once, not twice.
    canvas.tabIndex = what === "error" ? -1 : 0;
    canvas.setAttribute("aria-label", `${what} of ${cube.label}; arrow keys move the pixel`);
    canvas.addEventListener("click", (event) => {
      const place = canvas.getBoundingClientRect();
      change({
        x: Math.floor(((event.clientX - place.left) / place.width) * width),
        y: Math.floor(((event.clientY - place.top) / place.height) * height),
      });
    });
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 8 : 1;
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
        ArrowDown: [0, 1] }[event.key] || [0, 0];
      if (!dx && !dy) return;
      event.preventDefault();
      change({ x: state.x + step * dx, y: state.y + step * dy });
    });
    return { canvas, mark: make("span", box, { class: "mark" }) };
  };
  for (const cube of cubes) {
    cube.panel = make("figure", get("panels"), { class: "panel" });
    make("figcaption", cube.panel, {}, cube.label);
    cube.pictures = [picture(cube, "band", cube.panel)];
    if (reference && cube !== reference) cube.pictures.push(picture(cube, "error", cube.panel));
  }

  const drawPictures = () => {
    const first = state.band * pixels;
    const [top, end] = [white(), steps / GAINS[state.gain]];
    for (const cube of cubes) {
      cube.panel.hidden = state.case > 0 && cube.kind === "fused" && cube !== cases[state.case - 1];
      if (cube.panel.hidden) continue;
      const [band, error] = cube.pictures;
      paint(band.canvas, TABLES[0], (i) => cube.values[first + i] / top);
      if (error) {
        paint(error.canvas, TABLES[1], (i) =>
          Math.abs(cube.values[first + i] - reference.values[first + i]) / end);
      }
      for (const { mark } of cube.pictures) {
        mark.style.left = `${(100 * (state.x + 0.5)) / width}%`;
        mark.style.top = `${(100 * (state.y + 0.5)) / height}%`;
      }
    }
    get("white-told").textContent = `${(top / steps).toPrecision(3)} in this band`;
    get("end-told").textContent = `${(end / steps).toPrecision(1)} absolute error`;
    const unit = data.wavelengths_nm ? `, ${bandName(state.band)}` : "";
    get("band-told").textContent = `${state.band + 1} of ${bands}${unit}`;
    get("gain-told").textContent = `${GAINS[state.gain]}×`;
  };

  const ticks = (low, high, most) => {
    const rough = (high - low) / most || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((one) => one >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step);
    return found.map((value) => +value.toPrecision(6));
  };
  const drawSpectrum = () => {
    const box = get("spectrum");
    const size = { w: box.clientWidth || 640, h: 260 };
    const edge = { left: 44, right: 12, top: 10, bottom: 38 };
    const shown = cubes.filter((cube) => !cube.panel.hidden);
    const lines = shown.map((cube) => spectrum(cube).map((value) => value / steps));
    const nm = data.wavelengths_nm || Array.from({ length: bands }, (_, s) => s + 1);
    const [left, right] = [Math.min(...nm), Math.max(...nm)];
    const top = Math.max(...lines.map((line) => Math.max(...line)), 0.01);
    const px = (x) => edge.left + ((x - left) / (right - left || 1)) * (size.w - edge.left - edge.right);
    const py = (y) => size.h - edge.bottom - (y / top) * (size.h - edge.top - edge.bottom);
    box.replaceChildren();
    const svg = make("svg", box, { viewBox: `0 0 ${size.w} ${size.h}`, role: "img" });
    svg.setAttribute("aria-label", "Spectra of this pixel; the table below holds its numbers");
    for (const y of ticks(0, top, 5)) {
      make("line", svg, { class: "axis", x1: edge.left, x2: size.w - edge.right, y1: py(y), y2: py(y) });
      make("text", svg, { x: edge.left - 6, y: py(y) + 4, "text-anchor": "end" }, y);
    }
    for (const x of ticks(left, right, Math.max(2, size.w / 110))) {
      make("text", svg, { x: px(x), y: size.h - edge.bottom + 16, "text-anchor": "middle" }, x);
    }
    const unit = data.wavelengths_nm ? "wavelength (nm)" : "band";
    make("text", svg, { x: (px(left) + px(right)) / 2, y: size.h - 4, "text-anchor": "middle" }, unit);
    const here = px(nm[state.band]);
    make("line", svg, { class: "here", x1: here, x2: here, y1: edge.top, y2: size.h - edge.bottom });
    shown.forEach((cube, i) => {
      const points = Array.from(lines[i], (y, s) => `${px(nm[s]).toFixed(2)},${py(y).toFixed(2)}`);
      trace(svg, cube, "polyline", { points: points.join(" ") });
    });
    tabulate(shown, lines);
  };
  const trace = (svg, cube, name, attributes) => {
    const line = make(name, svg, { class: `trace ${cube.look || "reference"}`, ...attributes });
    if (cube !== reference) line.setAttribute("stroke-dasharray", cube.dash);
  };

  const angle = (a, b) => {
    const dot = (p, q) => p.reduce((sum, value, s) => sum + value * q[s], 0);
    const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    return (Math.acos(Math.max(-1, Math.min(1, cosine))) * 180) / Math.PI;
  };
  const rmse = (a, b) => Math.sqrt(a.reduce((sum, x, s) => sum + (x - b[s]) ** 2, 0) / bands);
  const told = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
  const fill = (table, head, rows) => {
    table.replaceChildren();
    const line = make("tr", make("thead", table));
    head.forEach((text, i) => make("th", line, i ? { scope: "col" } : { scope: "col", class: "name" }, text));
    const body = make("tbody", table);
    return rows.map((cells) => {
      const row = make("tr", body);
      return cells.map((text, i) =>
        make(i ? "td" : "th", row, i ? {} : { scope: "row", class: "name" }, text));
    });
  };
  const tabulate = (shown, lines) => {
    get("pixel-told").textContent = `Row ${data.row + state.y}, column ${data.column + state.x}`;
    const truth = reference && lines[shown.indexOf(reference)];
    const rows = shown.map((cube, i) => {
      const value = told(lines[i][state.band], 5);
      if (!truth) return [cube.label, value];
      if (cube === reference) return [cube.label, "", "", value];
      return [cube.label, told(angle(lines[i], truth), 3), told(rmse(lines[i], truth), 5), value];
    });
    const at = `at ${bandName(state.band)}`;
    const head = truth ? ["Spectrum", "SAM (deg)", "RMSE", at] : ["Spectrum", at];
    fill(get("pixel-table"), head, rows).forEach(([name], i) => {
      const swatch = make("svg", name, { class: "swatch", viewBox: "0 0 32 10" });
      trace(swatch, shown[i], "line", { x1: 0, x2: 32, y1: 5, y2: 5 });
      name.prepend(swatch);
    });
    // Five decimals tell every recorded step of 1/65535 from the next.
    const values = Array.from({ length: bands }, (_, s) =>
      [bandName(s), ...lines.map((line) => told(line[s], 5))]);
    fill(get("pixel-values"), ["Band", ...shown.map((cube) => cube.label)], values);
  };

  const LIMITS = { band: bands, x: width, y: height, gain: GAINS.length, case: cases.length + 1 };
  const change = (news, remember = true) => {
    for (const [key, value] of Object.entries(news)) {
      if (Number.isFinite(value)) {
        state[key] = Math.max(0, Math.min(LIMITS[key] - 1, Math.round(value)));
      }
    }
    for (const key of ["gain", "case"]) get(key).value = state[key];
    get("band").value = state.band + 1;
    drawPictures();
    drawSpectrum();
    if (!remember) return;
    const { band, x, y, gain } = state;
    const address = `#band=${band + 1}&x=${x}&y=${y}&gain=${GAINS[gain]}&case=${state.case}`;
    try {
      history.replaceState(null, "", address);
    } catch {
      // A frame without rights of its own, such as MLflow's, has no address to change.
    }
  };
  const fromAddress = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    if (!given.has("band")) return;
    const number = (name) => (given.has(name) ? Number(given.get(name)) : NaN);
    const gain = GAINS.indexOf(number("gain"));
    const news = { band: number("band") - 1, gain: gain < 0 ? NaN : gain };
    for (const name of ["x", "y", "case"]) news[name] = number(name);
    change(news, false);
  };

  // The strongest gain at which few of the errors lie beyond the scale.
  if (reference) {
    const found = [];
    for (const cube of compared) {
      for (let i = 0; i < cube.values.length; i += 97) {
        found.push(Math.abs(cube.values[i] - reference.values[i]) / steps);
      }
    }
    found.sort((a, b) => a - b);
    const large = found[Math.floor(0.98 * (found.length - 1))];
    state.gain = Math.max(0, GAINS.findLastIndex((gain) => gain * large <= 1));
  }
  get("gain-control").hidden = get("error-scale").hidden = !reference;
  get("gain").max = GAINS.length - 1;
  cases.forEach((cube, i) => make("option", get("case"), { value: i + 1 }, cube.label));
  get("band").addEventListener("input", (event) => change({ band: event.target.value - 1 }));
  for (const key of ["gain", "case"]) {
    get(key).addEventListener("input", (event) => change({ [key]: Number(event.target.value) }));
  }
  paint(get("grey-scale"), TABLES[0], (i) => i / 255);
  paint(get("map-scale"), TABLES[1], (i) => i / 255);
  get("view").hidden = false;
  change({}, false);
  fromAddress();
  window.addEventListener("hashchange", fromAddress);
  window.addEventListener("resize", drawSpectrum);
})();
