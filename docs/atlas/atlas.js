// The atlas in the browser. Everything a stranger wrote reaches the page as text (h never reads markup).
// Data are scripts that call atlas(name, value): browsers load scripts, and nothing else, beside a page in a folder.
"use strict";

const store = new Map();
window.atlas = (name, value) => store.set(name, value);

const loading = new Map();
function load(name) {
  if (!loading.has(name)) {
    loading.set(name, new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => done(store.get(name));
      script.onerror = () => failed(new Error(`data/${name}.js is missing: build the atlas again`));
      document.head.append(script);
    }));
  }
  return loading.get(name);
}

// ---- elements

const SVG = "http://www.w3.org/2000/svg";
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, own] of Object.entries(value)) element.style.setProperty(key, own);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== false) element.append(child);
  return element;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const g = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const name = (text) => h("bdi", null, text);
const signed = (text) => text.replace("-", "−");
const say = (value, digits = 2) => (value === null || value === undefined ? "–" : signed(Number(value).toFixed(digits)));
function brief(value) {  // three digits: 12.5, 0.00125, 1.25×10⁻⁵
  if (value === null || value === undefined) return "–";
  const [digits, power] = Number(value).toExponential(2).split("e").map(Number);
  if (digits === 0 || (power > -4 && power < 7)) return signed(String(Number(Number(value).toPrecision(3))));
  return signed(`${digits}×10`) + [...String(power)].map((letter) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(letter)]).join("");
}
const counted = (num, word) => `${num.toLocaleString("en")} ${word}${num === 1 ? "" : "s"}`;
const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`);

// ---- the state, which is the address: #/LAYER/UNIT?way=guided

function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  const steps = path.split("/").filter((step) => step !== "").map(decode);
  return { steps, query: new URLSearchParams(query || "") };
}
function decode(step) {
  try { return decodeURIComponent(step); } catch { return step; }
}
function address(steps, query = {}) {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value) params.set(key, value);
  const words = params.toString();
  return `#/${steps.map(encodeURIComponent).join("/")}${words ? `?${words}` : ""}`;
}
function asked() {
  return Object.fromEntries(parse(location.hash).query);
}
function change(query) {  // the same page in another state, without a step in the history
  history.replaceState(null, "", address(parse(location.hash).steps, { ...asked(), ...query }));
}

let net;
const numberOf = (layer) => net.layers.findIndex((of) => of.name === layer);
const numberIn = (text) => (/^\d+$/.test(text || "") ? Number(text) : -1);  // of an address
const classOf = (label) => (label >= 0 && label < net.data.classes.length ? net.data.classes[label] : null);
const sheetOf = (number, unit, kind) => `img/${number}/${unit}-${kind}.webp`;
const WAYS = { deconvnet: "projection", guided: "guided backpropagation", gradient: "gradient" };
const wayName = (way) => WAYS[way] || way;

// ---- the ways of sorting a wall

const SORTS = {
  __proto__: null,  // any word may stand in an address
  strength: ["strength", (u) => u.strength],
  selectivity: ["class selectivity", (u) => u.selectivity],
  sparsity: ["sparsity", (u) => u.sparsity],
  resemblance: ["resemblance", (u) => u.resemblance],
  class: ["class", null],
  number: ["number", null],
};
function sorted(units, sort) {
  const value = (SORTS[sort] || SORTS.strength)[1];
  const numbers = units.map((_, n) => n);
  if (sort === "number") return numbers;
  if (sort === "class") {
    const word = (n) => classOf(units[n].class) ?? "\uffff";
    return numbers.sort((a, b) => word(a).localeCompare(word(b)) || units[b].selectivity - units[a].selectivity || a - b);
  }
  const of = (n) => value(units[n]) ?? -Infinity;
  return numbers.sort((a, b) => of(b) - of(a) || a - b);
}
function labelIn(query) {  // the class that an address asks for; -1: all of them
  const label = numberIn(query.class);
  return classOf(label) === null ? -1 : label;
}
function fits(unit, number, text, label) {
  if (label >= 0 && unit.class !== label && !unit.classes.some(([own]) => own === label)) return false;
  if (!text) return true;
  const words = [String(number), unit.name, ...unit.classes.map(([own]) => classOf(own) || "")];
  const sought = text.toLowerCase();
  return words.some((word, n) => (n === 0 ? word === sought : word.toLowerCase().includes(sought)));
}
function chosen(units, query) {
  return sorted(units, query.sort || "strength").filter((n) => fits(units[n], n, query.q || "", labelIn(query)));
}

// ---- pages

const main = document.getElementById("main");
const field = document.getElementById("query");
let keys = {};  // what the arrow keys do on this page

const SIDE = 120;  // of a mosaic, pixels
function mosaic(src, words, tile) {  // a sheet under the lines between its tiles
  const rows = Math.ceil(net.num_images / net.columns), wide = net.columns * tile[1], high = rows * tile[0];
  const width = SIDE * Math.min(1, wide / high), height = (width * high) / wide;
  const picture = h("img", { src, alt: words, loading: "lazy", decoding: "async", width: Math.round(width), height: Math.round(height) });
  return h("span", {
    class: `mosaic${Math.max(wide, high) < SIDE / 2 ? " fine" : ""}`,
    style: { "max-width": `${width}px`, "aspect-ratio": `${wide} / ${high}`, "--columns": net.columns, "--rows": rows },
  }, picture);
}
function tile(number, unit, record, query, withPatches = true) {
  const words = `${net.layers[number].name} ${record.name}: ${wayName(net.ways[0])} of its ${counted(record.images.length, "strongest image")}`;
  const sheet = record.images.length ? mosaic(sheetOf(number, unit, net.ways[0]), words, net.layers[number].tile)
    : h("span", { class: "mosaic dead", role: "img", "aria-label": "no image excites it" }, "dead");
  const show = (kind) => () => { if (record.images.length) sheet.firstChild.src = sheetOf(number, unit, kind); };
  const best = classOf(record.class);
  return h("a", {
    class: "unit", href: address([net.layers[number].name, unit], query),
    ...(withPatches ? { onmouseenter: show("patch"), onmouseleave: show(net.ways[0]), onfocus: show("patch"), onblur: show(net.ways[0]) } : {}),
  }, sheet, h("span", { class: "label" }, h("b", null, unit), best ? [" ", name(best)] : null));
}

function overview() {  // of the facts alone: the records of all layers may be many
  const rows = net.layers.map((of, number) => h("section", { class: "layer" },
    h("h2", null, h("a", { href: address([of.name]) }, name(of.name))),
    h("p", { class: "quiet" }, facts(of)),
    h("div", { class: "strip" }, of.strongest.map((record) => tile(number, record.unit, record)))));
  const alike = net.switches;
  const shown = new Set(net.layers.map((of) => of.name)), hidden = net.net_layers.filter((layer) => !shown.has(layer));
  return [
    h("h1", null, name(net.title)),
    h("p", { class: "lead" }, `Every unit of ${counted(net.layers.length, "layer")}, and what excites it most among ${counted(net.data.num_images, "picture")} of `, name(net.data.name), `. A tile shows the ${wayName(net.ways[0])} of each of a unit’s strongest images; the pointer over it, the patches that it sees.`),
    scaleNote(),
    Object.entries(net.not_applicable || {}).map(([part, reason]) => h("p", { class: "caution" }, h("strong", null, "Left out. "), `${part}, as ${reason}.`)),
    alike && Object.keys(alike.cosine).length ? h("p", { class: "caution" }, h("strong", null, "What a projection tells. "), likeness(alike)) : null,
    rows,
    h("footer", null,
      h("h2", null, "This atlas"),
      h("dl", { class: "facts" },
        pair("net", [name(net.name), ", ", h("code", null, net.fingerprint)]),
        hidden.length ? pair("layers not shown", name(hidden.join(", "))) : null,
        pair("data", [name(net.data.name), `, ${counted(net.data.num_images, "picture")}, `, h("code", null, net.data.fingerprint)]),
        net.compare ? pair("beside", [name(net.compare.name), ...Object.keys(net.compare.layers).flatMap((layer) => [" ", h("a", { href: address(["~compare", layer]) }, name(layer))])]) : null,
        pair("made", net.date), pair("with", Object.entries(net.versions).map((pair) => pair.join(" ")).join(", "))),
      h("p", { class: "quiet" }, net.embeds)),
  ];
}
function pair(term, value) { return [h("dt", null, term), h("dd", null, value)]; }
function facts(of) {
  const [height, width] = of.shape, num = of.shape.at(-1);
  const size = of.shape.length === 3 ? `${counted(num, "map")} of ${height}×${width}` : counted(num, "unit");
  const [high, wide] = [of.field].flat().concat(of.field);
  const sees = of.field === null ? "receptive field unknown" : of.sees_all ? "sees the whole picture" : `sees ${high}×${wide} pixels`;
  return `${size}, ${sees}, ${of.dead ? `${of.dead} dead` : "none dead"}`;
}
function likeness(alike) {
  const of = Object.entries(alike.cosine).map(([way, value]) => `${say(value)} (${wayName(way)})`);
  return [`Much of its shape comes from the switches and masks of its picture, not from the unit: in ${counted(alike.num_images, "picture")} the strongest and the weakest active unit of one place of `, name(alike.layer), ` have pictures whose cosine is ${of.join(", ")} on the mean; 1 would be the same picture. What differs between units of one place is what they say.`];
}

async function wall(layer) {
  const number = numberOf(layer), units = await load(`layer-${number}`), of = net.layers[number];
  const grid = h("div", { class: "wall" }), count = h("p", { class: "quiet", role: "status" });
  let shown = [];
  const draw = () => {
    const query = asked();
    shown = chosen(units, query);
    const { way, ...kept } = query;
    grid.replaceChildren(...shown.map((unit) => tile(number, unit, units[unit], kept)));
    count.textContent = shown.length === units.length ? facts(of) : `${shown.length} of ${counted(units.length, "unit")}`;
  };
  const query = asked(), label = labelIn(query);
  const labels = [...new Set([label, ...units.flatMap((u) => [u.class, ...u.classes.map(([own]) => own)])])].filter((own) => classOf(own) !== null);
  labels.sort((a, b) => classOf(a).localeCompare(classOf(b)));
  const choose = (key, words, options, value) => h("label", null, words, " ",
    h("select", { id: `by-${key}`, onchange: (event) => { change({ [key]: event.target.value }); draw(); } },
      options.map(([own, text]) => h("option", { value: own, selected: own === value }, text))));
  field.value = query.q || "";
  keys = { grid, search: () => { change({ q: field.value.trim() }); draw(); }, up: () => address([]) };
  draw();
  return [
    h("h1", null, name(layer)),
    count,
    net.compare && net.compare.layers[layer] ? h("p", null, h("a", { href: address(["~compare", layer]) }, "Beside ", name(net.compare.name))) : null,
    h("div", { class: "tools" },
      choose("sort", "sort by", Object.entries(SORTS).map(([key, [words]]) => [key, words]), query.sort || "strength"),
      labels.length ? choose("class", "class", [["", "all"], ...labels.map((own) => [String(own), classOf(own)])], label < 0 ? "" : String(label)) : null),
    scaleNote(),
    grid,
  ];
}
const inGrey = () => (net.in_grey ? ` ${net.in_grey}` : "");
function scaleNote() {
  return h("p", { class: "quiet" }, `The ${wayName(net.ways[0])} of each image: zero is mid-grey, and all of one unit share one scale.${inGrey()}`);
}

function cell(src, n, of, size, words, columns = net.columns, num = net.num_images) {  // tile n of a sheet, its longer side `size` pixels
  const [height, width] = of, rows = Math.ceil(num / columns);
  const scale = size / Math.max(height, width), wide = width * scale, high = height * scale;
  return h("span", {
    class: `cell${Math.max(height, width) < size / 2 ? " fine" : ""}`, role: "img", "aria-label": words,
    style: {
      width: `${wide}px`, height: `${high}px`, "background-image": `url("${src}")`,
      "background-size": `${wide * columns}px ${high * rows}px`,
      "background-position": `${-(n % columns) * wide}px ${-Math.floor(n / columns) * high}px`,
    },
  });
}
function whole(index, box, size) {
  const [height, width] = net.image_size, scale = size / Math.max(height, width), part = (value, all) => `${(100 * value) / all}%`;
  const [top, left, bottom, right] = box ? [Math.max(box[0], 0), Math.max(box[1], 0), Math.min(box[2], height), Math.min(box[3], width)] : [0, 0, 0, 0];
  return h("span", { class: "whole", style: { width: `${width * scale}px` } },
    h("img", { src: `img/whole/${index}.webp`, alt: "the whole picture", loading: "lazy", decoding: "async", width: Math.round(width * scale), height: Math.round(height * scale) }),
    box && (bottom - top < height || right - left < width)
      ? h("span", { class: "box", style: { top: part(top, height), left: part(left, width), width: part(right - left, width), height: part(bottom - top, height) } }) : null);
}

async function unit(layer, text) {
  const number = numberOf(layer), units = await load(`layer-${number}`), m = numberIn(text), of = net.layers[number];
  const record = units[m];
  if (!record) return lost(name(layer), ` has units 0 to ${units.length - 1}, and none `, name(text), ".");
  const query = asked(), order = chosen(units, query), { way: _, ...kept } = query;
  const at = order.indexOf(m), line = at < 0 ? units.map((_, n) => n) : order, here = at < 0 ? m : at;
  const beside = (step) => line[(here + step + line.length) % line.length];
  const images = await Promise.all(record.images.map(imageRecord));
  const projections = record.images.map((_, n) => h("span"));
  const size = of.sees_all ? 144 : 96;  // where a unit sees the whole picture, its patch is that
  const scale = h("span"), ways = h("div", { class: "ways", role: "radiogroup", "aria-label": "way down to the pixels" });
  const show = (way) => {
    projections.forEach((place, n) => place.replaceChildren(cell(sheetOf(number, m, way), n, of.tile, size, `${wayName(way)} of image ${n + 1}`)));
    const value = record.scales[net.ways.indexOf(way)];
    scale.textContent = value === null ? `Each ${wayName(way)} is nothing but rounding, and drawn as grey.` : `Zero is mid-grey; white and black are ±${brief(value)} in each ${wayName(way)} of this unit.${inGrey()}`;
    for (const button of ways.children) {
      const on = button.dataset.way === way;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
    }
    before.setAttribute("href", go(-1));
    after.setAttribute("href", go(1));
  };
  const turn = (way) => { change({ way: way === net.ways[0] ? "" : way }); show(way); };
  ways.append(...net.ways.map((way) => h("button", { type: "button", role: "radio", "data-way": way, onclick: () => turn(way) }, wayName(way))));
  const current = () => (net.ways.includes(asked().way) ? asked().way : net.ways[0]);
  const beyond = (step) => net.ways[(net.ways.indexOf(current()) + step + net.ways.length) % net.ways.length];
  const go = (step) => address([layer, beside(step)], { ...kept, way: asked().way });
  const kind = of.shape.length === 3 ? "map" : "unit";
  const before = h("a", { rel: "prev", "aria-label": `previous: ${kind} ${beside(-1)}` }, "←");
  const after = h("a", { rel: "next", "aria-label": `next: ${kind} ${beside(1)}` }, "→");
  keys = {
    left: () => go(-1), right: () => go(1), up: () => address([layer], kept),
    way: () => turn(beyond(1)), turn: (step) => { turn(beyond(step)); ways.querySelector("[aria-checked=true]").focus(); },
  };
  show(current());
  return [
    h("nav", { class: "path", "aria-label": "Where this is" }, h("a", { href: address([layer], kept) }, name(layer)), " / ", name(record.name),
      h("span", { class: "steps" }, before, " ", after)),
    h("h1", null, name(layer), " ", name(record.name === String(m) ? m : record.name)),
    h("dl", { class: "facts inline" },
      measure("strength", "strongest activation", brief(record.strength)),
      measure("selectivity", "class selectivity", say(record.selectivity)),
      measure("sparsity", "sparsity", say(record.sparsity)),
      measure("resemblance", "resemblance", say(record.resemblance)),
      record.grey === null ? null : measure("grey", "stays in grey", percent(record.grey)),
      record.object === null ? null : measure("object", "on the object (chance)", `${percent(record.object[0])} (${percent(record.object[1])})`),
      record.parts.map(([share, chance], n) => share === null ? null : measure("part", `near ${net.parts[n] ? `the ${net.parts[n]}` : `part ${n + 1}`} (chance)`, `${percent(share)} (${percent(chance)})`))),
    record.images.length ? [
      net.ways.length > 1 ? ways : null,
      h("p", { class: "quiet", role: "status" }, scale),
      h("ol", { class: "nine" }, record.images.map((index, n) => h("li", { class: "card" },
        h("a", { class: "trio", href: address(["~image", index]), "aria-label": `image ${n + 1}: ${images[n].name}` },
          whole(index, record.boxes[n], size), of.sees_all ? null : cell(sheetOf(number, m, "patch"), n, of.tile, size, `patch of image ${n + 1}`), projections[n]),
        h("p", { class: "label" }, h("b", null, brief(record.values[n])), " ", classOf(images[n].label) === null ? pictureName(index, images[n]) : name(classOf(images[n].label)),
          record.values[n] < 0 ? h("em", null, " below 0: what speaks against the unit") : null)))),
    ] : h("p", null, "No image of the set excites this unit: it is dead."),
    h("div", { class: "charts" },
      chart("Activations", histogram(record.histogram), "strongest activation in each image of the set, images counted on a root scale"),
      record.classes.length ? chart(`Classes of its ${counted(Math.min(50, net.data.num_images), "strongest image")}`, bars(record.classes), [classOf(record.class) === null ? null : ["most excited by ", name(classOf(record.class)), "; "], "images that do not excite it are not counted"]) : null,
      of.shape.length === 3 ? chart("Where its maximum stands", places(record.where, of.cells), "stronger where more images have it; the frame is the picture") : null,
      net.filters && net.filters.layer === layer ? chart("Its filter", filter(m), `zero is mid-grey; all filters share one scale, ±${brief(net.filters.scale)}`) : null),
    record.ascent ? ascent(number, m, record) : null,
    record.epochs ? evolution(number, m, record.epochs) : null,
    record.match ? matched(layer, record.match) : null,
    ["inputs", "outputs"].map((side) => record[side] && record[side].units.length ? await_(wires(side, record[side])) : null),
  ];
}
function ascent(number, m, record) {  // what climbs from noise, beside the projection of the strongest image
  const of = net.layers[number], columns = Math.ceil(Math.sqrt(record.ascent.length));
  const one = (picture, words) => h("li", null, picture, h("p", { class: "label" }, words));
  return h("section", null, h("h2", null, "What it climbs to"),
    h("p", { class: "quiet" }, "No photo: gradient ascent from noise, of waves in the colours of the set, moved, turned and scaled at every step; last, the projection of its strongest image. Numbers: the unit’s strongest activation on each."),
    h("ul", { class: "wires" },
      record.ascent.map((value, n) => one(cell(sheetOf(number, m, "ascent"), n, of.tile, 144, `ascent from start ${n + 1}`, columns, record.ascent.length), brief(value))),
      one(cell(sheetOf(number, m, net.ways[0]), 0, of.tile, 144, `${wayName(net.ways[0])} of its strongest image`), `${brief(record.values[0])}, its strongest image`)));
}
function evolution(number, m, record) {  // the projection of its strongest image, by the network of each kept epoch
  const values = record.slice(0, -1), columns = Math.ceil(Math.sqrt(values.length)), last = values.length - 1;
  const [height, width] = net.image_size, place = h("span"), words = h("output", { for: "epoch" });
  const show = (n) => {
    place.replaceChildren(cell(sheetOf(number, m, "epochs"), n, [height, width], 144, `projection after epoch ${net.epochs[n]}`, columns, values.length));
    words.textContent = `after epoch ${net.epochs[n]}: activation ${brief(values[n])}`;
  };
  const slider = h("input", { id: "epoch", type: "range", min: 0, max: last, value: last, "aria-label": "epoch", oninput: (event) => show(Number(event.target.value)) });
  show(last);
  return h("section", { class: "epochs" }, h("h2", null, "While it was trained"),
    h("p", { class: "quiet" }, `Today’s strongest image, projected by the network of then; zero is mid-grey, one scale for all epochs, ±${brief(record.at(-1))}.`),
    h("div", { class: "trio" }, place, h("div", null, slider, h("p", null, words))));
}
function other(layer, m, withLabel = true) {  // a unit of the second network, whose atlas lies below this one
  const { folder, layers, way } = net.compare, { number, tile } = layers[layer];
  return h("a", { class: "unit", href: `${folder}/index.html${address([layer, m])}` },
    mosaic(`${folder}/${sheetOf(number, m, way)}`, `${layer} ${m} of ${net.compare.name}: ${wayName(way)}`, tile),
    withLabel ? h("span", { class: "label" }, h("b", null, m)) : null);
}
function matched(layer, [m, correlation]) {
  return h("section", null,
    h("h2", null, "In ", name(net.compare.name)),
    h("p", { class: "quiet" }, "the unit of ", name(layer), ` whose activations over the set go most with its own: correlation ${say(correlation)}. `, h("a", { href: address(["~compare", layer]) }, "All pairs")),
    h("div", { class: "wires" }, other(layer, m)));
}
async function compare(layer) {
  const number = numberOf(layer), known = net.compare && net.compare.layers[layer];
  if (number < 0 || !known) return lost("No second network is compared ", layer ? ["in ", name(layer)] : "here", ".");
  const units = await load(`layer-${number}`);
  const order = units.map((_, m) => m).filter((m) => units[m].match && units[m].images.length).sort((a, b) => units[b].match[1] - units[a].match[1] || a - b);
  keys = { up: () => address([layer]) };
  return [
    h("h1", null, name(layer), " in two networks"),
    h("p", null, "Left ", name(net.name), ", right the unit of ", name(net.compare.name), ` whose activations over the set go most with it; the mean correlation is ${say(known.mean)}. Several units may have one match.`, net.compare.way === net.ways[0] ? null : ` Right stands the ${wayName(net.compare.way)}.`),
    scaleNote(),
    h("div", { class: "pairs" }, order.map((m) => h("div", { class: "pair" }, tile(number, m, units[m], {}), other(layer, units[m].match[0]), h("span", { class: "label" }, say(units[m].match[1]))))),
  ];
}
function measure(key, words, value) {
  return h("div", { title: net.meanings[key] }, h("dt", null, words), h("dd", null, value));
}
function await_(promise) {  // a place for what comes later
  const place = h("div");
  promise.then((element) => place.append(element));
  return place;
}
const pictureName = (index, record) => name(record.name === String(index) ? `image ${index}` : record.name);
async function imageRecord(index) {  // undefined where the atlas does not show it
  const number = Math.floor(index / net.chunk);
  return net.chunks.includes(number) ? (await load(`images-${number}`))[index] : undefined;
}
function chart(title, drawing, words) {
  return h("figure", { class: "chart" }, h("h2", null, title), drawing, h("figcaption", { class: "quiet" }, words));
}
function histogram(record) {
  const counts = record.slice(0, -2), [low, high] = record.slice(-2), top = Math.sqrt(Math.max(...counts, 1)), step = 240 / counts.length;
  return h("div", null,
    g("svg", { viewBox: "0 0 240 80", role: "img", "aria-label": `histogram from ${brief(low)} to ${brief(high)}` },
      counts.map((count, n) => g("rect", { x: n * step, y: 80 - (78 * Math.sqrt(count)) / top, width: step - 1, height: (78 * Math.sqrt(count)) / top }, g("title", null, counted(count, "image"))))),
    h("div", { class: "axis" }, h("span", null, brief(low)), h("span", null, brief(high))));
}
function bars(classes) {
  const top = Math.max(...classes.map(([, count]) => count));
  return h("ul", { class: "bars" }, classes.map(([label, count]) => h("li", null,
    h("span", { class: "bar", style: { width: `${(60 * count) / top}%` } }), h("span", { title: classOf(label) }, `${count} `, name(classOf(label) ?? label)))));
}
function places(counts, [rows, columns]) {
  const top = Math.max(...counts, 1), step = 84 / columns;
  return g("svg", { class: "places", viewBox: `0 0 84 ${step * rows}`, role: "img", "aria-label": `places of the maximum, ${rows} by ${columns} cells` },
    counts.map((count, n) => g("rect", { x: (n % columns) * step, y: Math.floor(n / columns) * step, width: step, height: step, "fill-opacity": count / top }, g("title", null, counted(count, "image")))));
}
function filter(m) {
  const { size: [height, width], columns } = net.filters, size = 84, rows = Math.ceil(net.layers[0].shape.at(-1) / columns);
  return h("span", { class: "cell fine", role: "img", "aria-label": `filter ${m}`, style: {
    width: `${size}px`, height: `${(size * height) / width}px`, "background-image": 'url("img/filters.webp")',
    "background-size": `${size * columns}px ${((size * height) / width) * rows}px`,
    "background-position": `${-(m % columns) * size}px ${(-Math.floor(m / columns) * size * height) / width}px`,
  } });
}
async function wires(side, { layer, units: ends }) {
  const number = numberOf(layer), units = number < 0 ? null : await load(`layer-${number}`);
  const words = side === "inputs" ? "Reads most of" : "Is read most by";
  return h("section", null,
    h("h2", null, `${words} `, name(layer)),
    h("p", { class: "quiet" }, "by the norm of its weights; − where their sum is negative"),
    h("ul", { class: "wires" }, ends.map(([m, weight]) => h("li", null,
      units ? tile(number, m, units[m], {}) : h("span", { class: "label" }, `${layer} ${m}`),
      h("span", { class: "label" }, `${weight < 0 ? "−" : "+"}${brief(Math.abs(weight))}`)))));
}

async function image(text) {
  const index = numberIn(text), record = await imageRecord(index);
  if (!record) return lost("Image ", name(text || ""), " is not among those that the atlas shows.");
  const rows = await Promise.all(net.layers.map(async (of, number) => {
    const units = await load(`layer-${number}`), best = record.units[number] || [];
    return best.length ? h("section", { class: "layer" }, h("h2", null, name(of.name)),
      h("div", { class: "strip" }, best.map(([m, value, share]) => h("div", null, tile(number, m, units[m], {}), h("span", { class: "label" }, `${brief(value)}, ${percent(share)}`))))) : null;
  }));
  keys = { up: () => address([]) };
  return [
    h("h1", null, pictureName(index, record)),
    h("div", { class: "one" }, whole(index, null, 224),
      h("dl", { class: "facts" }, classOf(record.label) === null ? null : pair("class", name(classOf(record.label))), record.said === undefined ? null : pair("the net says", name(record.said)), pair("place in the set", index))),
    record.occlusion ? hidden(index, record.occlusion) : null,
    h("p", { class: "quiet" }, "The units of each layer that it excites most, as a share of their strongest activation over the set."),
    scaleNote(),
    rows,
  ];
}

function hidden(index, of) {  // where a square takes away what the network says
  const [height, width] = net.image_size, [rows, columns] = of.shape, [[top, left], [bottom, right]] = of.corners;
  const high = (bottom - top) / Math.max(rows - 1, 1) || of.square, wide = (right - left) / Math.max(columns - 1, 1) || of.square;
  const least = Math.min(...of.chance), fall = of.whole - least;
  const shade = of.chance.map((value, n) => g("rect", {
    x: left + (n % columns) * wide + of.square / 2 - wide / 2, y: top + Math.floor(n / columns) * high + of.square / 2 - high / 2,
    width: wide, height: high, "fill-opacity": fall > 0 ? (0.8 * Math.max(0, of.whole - value)) / fall : 0,
  }, g("title", null, say(value))));
  const drawing = whole(index, null, 224);
  drawing.append(g("svg", { class: "shade", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "occlusion map" }, shade));
  return h("figure", { class: "chart wide" }, h("h2", null, "Where it sees ", name(of.class)), drawing,
    h("figcaption", { class: "quiet" }, fall > 0
      ? `The redder, the more a square of ${of.square} pixels in the picture’s mean colour takes from the probability, which is ${say(of.whole, 3)}: ${brief(fall)} where it is reddest.`
      : `No square of ${of.square} pixels in the picture’s mean colour takes anything from the probability, which is ${say(of.whole, 3)}.`));
}

function lost(...words) {
  return [h("h1", null, "Not there"), h("p", null, words), h("p", null, h("a", { href: "#/" }, "To the overview"))];
}

// ---- routing

let turn = 0;
let last = null;
async function route() {
  const own = ++turn, { steps } = parse(location.hash), [first, second] = steps;
  const height = scrollY;
  keys = {};
  let page;
  try {
    if (!steps.length) page = overview();
    else if (first === "~image") page = await image(second);
    else if (first === "~compare") page = await compare(second);
    else if (numberOf(first) < 0) page = lost("There is no layer ", name(first), " here.");
    else page = second === undefined ? await wall(first) : await unit(first, second);
  } catch (error) {
    page = lost(error.message);
  }
  if (own !== turn) return;  // the reader has gone on
  const moved = last !== null;
  if (moved) seen.set(last, height);
  last = location.hash;
  main.replaceChildren(...page.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  document.title = steps.length ? `${steps.filter((step) => step[0] !== "~").join(" / ")} · ${net.title}` : net.title;
  for (const link of document.querySelectorAll("#layers a")) {
    if (link.dataset.layer !== first) { link.removeAttribute("aria-current"); continue; }
    link.setAttribute("aria-current", "page");
    link.scrollIntoView({ block: "nearest", inline: "nearest" });  // of many layers, or on a phone, some are out of sight
  }
  if (first === undefined || second !== undefined) field.value = asked().q || "";
  if (moved) main.focus({ preventScroll: true });  // who reads by keys or ears goes on there
  scrollTo(0, seen.get(location.hash) || 0);
  main.dataset.ready = location.hash;
}
const seen = new Map();  // how far each page was scrolled

// ---- keys

const words = document.getElementById("words");
function help() {
  const list = [["← →", "the unit before, the next; on a wall, the tile beside; on a way down, the next"], ["↑", "from a unit to its layer"], ["w", "the next way down"], ["/", "search"], ["?", "this"], ["Esc", "close"]];
  words.replaceChildren(
    h("h2", { id: "words-title" }, "Keys"), h("dl", { class: "facts" }, list.map(([key, text]) => pair(h("kbd", null, key), text))),
    h("h2", null, "Words"), h("dl", { class: "facts" }, Object.entries(net.meanings).map(([key, text]) => pair(key, text))),
    h("form", { method: "dialog" }, h("button", null, "Close")));
  words.showModal();
}
function named(text) {  // [layer] or [layer, unit] that a search names; the layer's own name may hold slashes and spaces
  const steps = net.layers.flatMap(({ name: layer }) => {
    if (!text.toLowerCase().startsWith(layer.toLowerCase())) return [];
    const rest = text.slice(layer.length);
    if (rest === "") return [[layer]];
    return /^[\s/]+\d+$/.test(rest) ? [[layer, rest.replace(/^[\s/]+/, "")]] : [];
  });
  return steps.sort((a, b) => b[0].length - a[0].length)[0];
}
function along(grid, step) {
  const tiles = [...grid.children], here = tiles.indexOf(document.activeElement);
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const next = here < 0 ? 0 : here + { left: -1, right: 1, up: -columns, down: columns }[step];
  if (tiles[next]) tiles[next].focus();
  return here >= 0 || step === "right";
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || words.open) return;
  const at = event.target, typing = at.matches("input, select, textarea");
  if (event.key === "Escape" && typing) { at.blur(); return; }
  if (typing) return;
  const step = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" }[event.key];
  if (event.key === "/") { event.preventDefault(); field.focus(); field.select(); }
  else if (event.key === "?") { event.preventDefault(); help(); }
  else if (event.key === "w" && keys.way) keys.way();
  else if (step && at.matches("[role=radio]")) { event.preventDefault(); keys.turn(step === "left" || step === "up" ? -1 : 1); }
  else if (step && keys.grid) { if (along(keys.grid, step)) event.preventDefault(); }
  else if (step && keys[step] && !(step === "up" && scrollY > 0)) { event.preventDefault(); location.hash = keys[step](); }
});
document.getElementById("help").addEventListener("click", help);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });  // "#main" is no page
document.getElementById("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme, dark = now ? now === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
});
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("atlas-theme", theme); } catch { /* a folder may keep nothing */ }
}
field.addEventListener("input", () => { if (keys.search) keys.search(); });
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = field.value.trim(), sought = named(text);
  if (sought) location.hash = address(sought);
  else if (keys.search) keys.grid.querySelector("a")?.focus();
  else if (text) location.hash = address([(net.layers.find((of) => of.name === parse(location.hash).steps[0]) || net.layers.at(-1)).name], { q: text });
});

load("net").then((value) => {
  net = value;
  let theme = null;
  try { theme = localStorage.getItem("atlas-theme"); } catch { /* likewise */ }
  if (theme) document.documentElement.dataset.theme = theme;
  document.getElementById("layers").append(...net.layers.map((of) => h("a", { href: address([of.name]), "data-layer": of.name }, name(of.name))));
  history.scrollRestoration = "manual";
  addEventListener("hashchange", route);
  route();
}, (error) => main.replaceChildren(h("p", null, error.message)));
