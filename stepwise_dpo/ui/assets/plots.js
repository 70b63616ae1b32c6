// Figures that are drawn once and then updated in place, so that a zoom and the legend's choices survive.
// value, as JSON text or an object:
// {"charts": [{"id", "title", "unit", "note", "log", "figure": {"data", "layout", "dark"?, "legend"?, "numbers"?}}]};
// "dark" holds what differs there: colorscale, colours. All text arrives escaped for plotly or is set as textContent.
// The legend is ours: its entries are buttons for the keyboard too, and hide all traces of a group ("meta") in all charts
// of the component. Gradio gives: element, props, trigger, watch.
const root = element.querySelector('.plots');
const config = {
  displaylogo: false,
  showSendToCloud: false, // else a button uploads the chart to another host
  responsive: false,
  modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d', 'zoomIn2d', 'zoomOut2d'],
};
const UNSEEN_SECONDS = 4; // a chart that isn't in view is drawn so rarely: drawing is half of what a live run costs a page
const FRAME_MS = 20; // within it the browser shows what was drawn
const NUMBER_SIZES = [12, 11, 10]; // of the numbers in a heatmap's cells, in pixels: the largest that fits
const pen = document.createElement('canvas').getContext('2d');
let hovering = false;
// What a reader has chosen, by key; it outlasts every update.
const hidden = new Set();
const logarithmic = new Set();
// The charts of the newest value by id, the ids of those that are still to be drawn, and the timer of the next one.
let latest = new Map();
let waiting = [];
let timer = null;
const seen = new Set(); // those of which more than a rim is in view
const viewer = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) seen[isIntersecting ? 'add' : 'delete'](target.dataset.id);
  if (waiting.some((id) => seen.has(id))) drawWaiting();
}, { rootMargin: '-60px 0px' });

const isDark = () => document.body.classList.contains('dark') || document.documentElement.classList.contains('dark');

function themed(figure) {
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: read('--sd-line'), linecolor: read('--sd-line'), zerolinecolor: read('--sd-zero'), tickcolor: read('--sd-line'), automargin: true };
  const layout = structuredClone(figure.layout);
  Object.assign(layout, {
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: style.fontFamily, size: 12, color: read('--sd-muted') },
    hoverlabel: { bgcolor: read('--sd-surface'), bordercolor: read('--sd-line'), font: { color: read('--sd-ink'), family: style.fontFamily } },
    margin: layout.margin ?? { l: 8, r: 12, t: 8, b: 8 },
    showlegend: false,
    modebar: { bgcolor: 'rgba(0,0,0,0)', color: read('--sd-zero'), activecolor: read('--sd-ink') },
  });
  // A finger that scrolls the page must not zoom.
  if (matchMedia('(pointer: coarse)').matches) layout.dragmode = false;
  for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) layout[name] = { ...axis, ...layout[name] };
  if (layout.coloraxis && isDark() && figure.dark) layout.coloraxis.colorscale = figure.dark.colorscale;
  return layout;
}

function darken(data, { colours = {} }) {
  for (const trace of data) for (const part of [trace.line, trace.marker]) if (part?.color in colours) part.color = colours[part.color];
}

// Numbers in the cells of a heatmap's trace: of those in view, once every one of them fits into its cell. Their own trace,
// since the heatmap's texttemplate chooses the text's colour without a promise about its contrast.
function numbersOf(figure, trace, { texts, inks, light, dark }) {
  const layout = figure._fullLayout;
  const across = layout[trace.xaxis.replace('x', 'xaxis')];
  const down = layout.yaxis;
  const inView = ({ range }, last) => [Math.max(1, Math.ceil(Math.min(...range))), Math.min(last, Math.floor(Math.max(...range)))];
  const room = ({ _length, range }) => _length / Math.abs(range[1] - range[0]);
  if (room(down) < NUMBER_SIZES.at(-1)) return []; // at once, and not after thousands of cells
  const [left, right] = inView(across, texts[0].length);
  const [top, bottom] = inView(down, texts.length);
  const ink = isDark() ? dark : light;
  const cells = [];
  for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) {
    const text = texts[y - 1][x - 1];
    if (text) cells.push([x, y, text, inks[ink[y - 1][x - 1]]]);
  }
  const longest = cells.reduce((one, [, , text]) => (text.length > one.length ? text : one), '');
  const { fontFamily } = getComputedStyle(root);
  const size = NUMBER_SIZES.find((size) => {
    pen.font = `${size}px ${fontFamily}`;
    return room(down) >= size + 3 && room(across) >= pen.measureText(longest).width + 3;
  });
  if (!size || !longest) return [];
  const column = (i) => cells.map((cell) => cell[i]);
  return [{
    type: 'scatter', mode: 'text', x: column(0), y: column(1), text: column(2), textfont: { size, color: column(3) },
    hoverinfo: 'skip', showlegend: false, xaxis: trace.xaxis, yaxis: trace.yaxis,
  }];
}

function writeNumbers(figure) {
  const { numbers, data, layout } = figure;
  if (!numbers || !figure._fullLayout?.yaxis) return;
  const traces = numbers.flatMap((side, i) => numbersOf(figure, data[i], side));
  const written = JSON.stringify(traces);
  if (figure.written === written) return;
  figure.written = written;
  Plotly.react(figure, [...data.slice(0, numbers.length), ...traces], layout, config);
}

function explained({ id, what }) {
  const box = document.createElement('span');
  box.className = 'what-box';
  box.popover = 'auto';
  box.id = `what-${id}-${Math.random().toString(36).slice(2)}`;
  for (const [tag, name, text] of [['b', '', what.title], ['span', '', what.words], ['span', 'math', what.formula], ['span', 'source', what.source]]) {
    if (!text) continue;
    const part = document.createElement(tag);
    part.className = name;
    part.textContent = text;
    box.append(part);
  }
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'what';
  button.textContent = '?';
  button.setAttribute('aria-label', `What is ${what.title}?`);
  button.popoverTargetElement = box;
  return [button, box];
}

const boxOf = ({ id }) => [...root.children].find((child) => child.dataset.id === id);

function place(chart, position) {
  let box = boxOf(chart);
  if (!box) {
    box = document.createElement('section');
    box.className = 'plot';
    box.dataset.id = chart.id;
    const heading = document.createElement('h3');
    const unit = document.createElement('span');
    const figure = document.createElement('div');
    figure.className = 'figure';
    unit.className = 'unit';
    heading.append(document.createElement('b'));
    if (chart.what) heading.append(...explained(chart));
    heading.append(unit);
    if (chart.log) heading.append(logButton(chart));
    const note = document.createElement('p');
    note.className = 'plot-note';
    note.setAttribute('role', 'status');
    const legend = document.createElement('div');
    legend.className = 'legend';
    box.append(heading, note, legend, figure);
    viewer.observe(box);
    new ResizeObserver(() => {
      if (!figure.clientWidth || !figure.data) return;
      Plotly.Plots.resize(figure).then(() => writeNumbers(figure));
    }).observe(figure);
  }
  if (root.children[position] !== box) root.insertBefore(box, root.children[position] ?? null);
  box.querySelector('b').textContent = chart.title;
  box.querySelector('.unit').textContent = chart.unit;
  box.querySelector('.plot-note').textContent = chart.note ?? '';
}

function logButton({ id, title }) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'plot-log';
  button.textContent = 'log';
  button.setAttribute('aria-label', `Logarithmic scale of ${title}`);
  button.setAttribute('aria-pressed', 'false');
  button.addEventListener('click', () => {
    if (!logarithmic.delete(id)) logarithmic.add(id);
    button.setAttribute('aria-pressed', String(logarithmic.has(id)));
    draw(id);
  });
  return button;
}

// A figure without a legend of its own lists its traces, as plotly would.
function legendOf({ id, figure }) {
  if (figure.legend) return figure.legend;
  if (!figure.layout.showlegend) return [];
  const named = figure.data.filter((trace) => trace.name && trace.showlegend !== false);
  return named.map((trace) => ({ group: `${id}/${trace.name}`, name: trace.name, colour: trace.line?.color ?? trace.marker?.color, dash: trace.line?.dash }));
}

const isHidden = (chart, trace) => (trace.meta ?? [`${chart.id}/${trace.name}`]).some((group) => hidden.has(group));

function drawLegend(box, chart) {
  const legend = box.querySelector('.legend');
  const entries = legendOf(chart);
  legend.hidden = !entries.length;
  // The same buttons again, so that the one with the focus keeps it.
  while (legend.children.length > entries.length) legend.lastChild.remove();
  entries.forEach(({ group, name, colour, dash, width = 3 }, i) => {
    let button = legend.children[i];
    if (!button) {
      button = document.createElement('button');
      button.type = 'button';
      button.append(document.createElement('i'), document.createElement('span'));
      button.addEventListener('click', () => {
        const { group } = button.dataset;
        if (!hidden.delete(group)) hidden.add(group);
        draw(chart.id);
      });
      legend.append(button);
    }
    button.dataset.group = group;
    button.setAttribute('aria-pressed', String(!hidden.has(group)));
    const stroke = { dash: 'dashed', dot: 'dotted' }[dash] ?? 'solid';
    button.firstChild.style.borderTop = `${width}px ${stroke} ${(isDark() && chart.figure.dark?.colours?.[colour]) || colour || 'currentColor'}`;
    button.lastChild.textContent = name;
  });
}

function scaled(layout, id) {
  // A zoom of one scale means nothing on the other.
  if (!layout.yaxis) return layout;
  layout.yaxis.uirevision = `${layout.uirevision} ${logarithmic.has(id)}`;
  if (logarithmic.has(id)) {
    const { range, rangemode, ...rest } = layout.yaxis;
    layout.yaxis = { ...rest, type: 'log', minorloglabels: 'complete' };
  }
  return layout;
}

function reportClicks(figure, id) {
  figure.on('plotly_click', ({ points: [point] }) => {
    if (point) trigger('choose', { chart: id, trace: point.data.name ?? '', x: point.x, y: point.y, key: point.customdata ?? null });
  });
}

function shareCursor(figure) {
  figure.on('plotly_hover', (event) => {
    if (hovering || !figure.layout.hovermode?.startsWith('x')) return;
    hovering = true;
    for (const other of root.querySelectorAll('.figure')) {
      if (other !== figure && other.data?.some((trace) => trace.x?.length)) Plotly.Fx.hover(other, { xval: event.xvals[0] }, 'xy');
    }
    hovering = false;
  });
  figure.on('plotly_unhover', () => {
    if (hovering) return;
    hovering = true;
    for (const other of root.querySelectorAll('.figure')) if (other !== figure && other.data) Plotly.Fx.unhover(other);
    hovering = false;
  });
}

// Says whether there was something to draw.
function drawChart(chart) {
  const box = boxOf(chart);
  const figure = box.querySelector('.figure');
  // Drawing in the middle of a drag would take the zoom away; the end of the drag makes up for it.
  if (figure._dragging) {
    window.addEventListener('mouseup', () => setTimeout(draw, 50, chart.id), { once: true, capture: true });
    return false;
  }
  const data = structuredClone(chart.figure.data);
  if (isDark()) darken(data, chart.figure.dark ?? {});
  drawLegend(box, chart);
  for (const trace of data) if (isHidden(chart, trace)) trace.visible = false;
  const layout = scaled(themed(chart.figure), chart.id);
  // What hasn't changed is left alone: the other charts of a page, and a page that nobody trains on.
  const drawn = JSON.stringify([data, layout]);
  if (figure.drawn === drawn) return false;
  figure.drawn = drawn;
  figure.drawnAt = performance.now();
  figure.style.height = layout.height ? `${layout.height}px` : '';
  delete layout.height;
  box.classList.toggle('empty', !data.some((trace) => trace.x?.length));
  figure.setAttribute('role', 'figure');
  figure.setAttribute('aria-label', `${chart.title}, ${chart.unit}`);
  const first = !figure.data;
  figure.numbers = chart.figure.numbers;
  figure.written = '[]';
  Plotly.react(figure, data, layout, config).then(() => {
    if (first) {
      shareCursor(figure);
      reportClicks(figure, chart.id);
      figure.on('plotly_relayout', () => writeNumbers(figure)); // a zoom
    }
    writeNumbers(figure);
    figure.dataset.updates = String(Number(figure.dataset.updates ?? 0) + 1);
  });
  return true;
}

// How long a chart still has to wait for its turn, in milliseconds.
function pause(id) {
  const { drawnAt } = boxOf({ id }).querySelector('.figure');
  return seen.has(id) || !drawnAt ? 0 : Math.max(0, drawnAt + UNSEEN_SECONDS * 1000 - performance.now());
}

// Each chart takes tens of milliseconds: one at a time, so that it is seen before the next one is drawn and clicks are
// heard between them, and the first at once.
function drawWaiting() {
  clearTimeout(timer);
  try {
    for (let drawn = false; !drawn;) {
      const next = waiting.findIndex((id) => pause(id) === 0);
      if (next < 0) break;
      const [id] = waiting.splice(next, 1);
      drawn = drawChart(latest.get(id));
    }
  } finally { // one that can't be drawn leaves the others their turn
    if (waiting.length) timer = setTimeout(drawWaiting, Math.max(FRAME_MS, Math.min(...waiting.map(pause))));
  }
}

// The chart of that id is drawn before the others: where somebody has pressed one of its buttons.
function draw(id) {
  if (!window.Plotly) return;
  const charts = (typeof props.value === 'string' ? JSON.parse(props.value) : props.value)?.charts ?? [];
  latest = new Map(charts.map((chart) => [chart.id, chart]));
  for (const box of [...root.children]) {
    if (latest.has(box.dataset.id)) continue;
    viewer.unobserve(box);
    seen.delete(box.dataset.id);
    Plotly.purge(box.querySelector('.figure'));
    box.remove();
  }
  charts.forEach(place); // all at once, so that nothing jumps
  if (latest.has(id)) boxOf({ id }).querySelector('.figure').drawnAt = 0; // also where only its head is in view
  // Those that still wait keep their turn, and will be drawn as they are by then.
  waiting = [...new Set([...(latest.has(id) ? [id] : []), ...waiting, ...latest.keys()])].filter((id) => latest.has(id));
  drawWaiting();
}

watch('value', () => draw());
new MutationObserver(() => draw()).observe(document.body, { attributes: true, attributeFilter: ['class'] });
draw();
