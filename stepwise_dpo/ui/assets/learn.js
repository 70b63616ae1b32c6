// The two losses of one pair, by three sliders; all is computed here. `drawInto` is plots.js as a function: the charts
// look, explain themselves and follow the theme as those of other tabs do.
// value: {"example": {"p", "d"} or null, "what": {chart id: glossary entry}}. Gradio gives: element, props, watch.
const DPO = '#0072B2', STEPWISE = '#D55E00', EXAMPLE = '#009E73';
const DARK = { [DPO]: '#4AA8E0', [STEPWISE]: '#EE8236', [EXAMPLE]: '#2FBF98' };
const GRID = 121, UPDATES = 60, RATE = 0.1;

// softplus(-z) = -ln sigmoid(z), without overflow at either end.
const loss = (z) => Math.max(-z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
const sigmoid = (z) => (z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z)));
// -d loss / d gap, where z = factor * gap: which way, and how hard, training pulls the gap.
const pull = (factor, gap) => factor * sigmoid(-factor * gap);

function descent(factor, gap) {
  const gaps = [gap];
  for (let update = 0; update < UPDATES; update += 1) gaps.push(gaps.at(-1) + RATE * pull(factor, gaps.at(-1)));
  return gaps;
}

const sliders = Object.fromEntries([...element.querySelectorAll('input[type=range]')].map((input) => [input.name, input]));
const read = (name) => Number(sliders[name].value);
const signed = (value, digits) => {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value > 0 ? '+' : '−') + text;
};
const set = (name, text) => { element.querySelector(`[data-out="${name}"]`).textContent = text; };
const way = (strength) => (strength > 0 ? 'right, to chosen' : strength < 0 ? 'left, to rejected' : 'nowhere');

const line = (name, x, y, color, more = {}) => ({ type: 'scatter', mode: 'lines', name, x, y, line: { color, width: 2.5, ...more }, hovertemplate: '%{y:.3f}' });
const dot = (name, x, y, color, more = {}) => ({ type: 'scatter', mode: 'markers', name, x: [x], y: [y], marker: { color, size: 11, ...more }, showlegend: false, hovertemplate: '%{y:.3f}' });

// Where rejected is likelier; tinted only while a negative preference pulls there.
const wrongSide = (axis, low, trapped) => ({
  type: 'rect', layer: 'below', line: { width: 0 }, fillcolor: STEPWISE, opacity: trapped ? 0.14 : 0,
  ...(axis === 'x' ? { x0: low, x1: 0, y0: 0, y1: 1, yref: 'paper' } : { y0: low, y1: 0, x0: 0, x1: 1, xref: 'paper' }),
});

function arrow(gap, height, strength, reach, color) {
  if (Math.abs(strength) < 1e-9) return [];
  const length = Math.sign(strength) * reach;
  return [{ x: gap + length, y: height, ax: gap, ay: height, xref: 'x', yref: 'y', axref: 'x', ayref: 'y', text: '', showarrow: true, arrowhead: 2, arrowsize: 1.2, arrowwidth: 2.5, arrowcolor: color }];
}

function lossCharts({ p, d, beta }, example) {
  const far = Math.max(3, ...(example ? [Math.abs(example.d) * 1.1] : []));
  const gaps = Array.from({ length: GRID }, (_, i) => -far + (2 * far * i) / (GRID - 1));
  const color = (name) => (document.body.classList.contains('dark') ? DARK[name] : name);
  const trapped = p < 0;
  const words = trapped ? [{ x: 0.02, y: 0.98, xref: 'paper', yref: 'paper', xanchor: 'left', yanchor: 'top', text: 'rejected likelier:<br>step-wise trains into here', showarrow: false, align: 'left' }] : [];
  const parts = [
    ['learn_loss', 'Loss', 'nats, by the gap d', (factor, gap) => loss(factor * gap)],
    ['learn_pull', 'Pull', '−dL/dd: above 0 towards chosen, below towards rejected', pull],
  ];
  return parts.map(([id, title, unit, value]) => {
    const data = [
      line('DPO, factor β', gaps, gaps.map((gap) => value(beta, gap)), DPO),
      line('step-wise, factor p', gaps, gaps.map((gap) => value(p, gap)), STEPWISE),
      dot('DPO here', d, value(beta, d), DPO),
      dot('step-wise here', d, value(p, d), STEPWISE),
    ];
    if (example) {
      data.push(line(`your example, p = ${signed(example.p, 2)}`, gaps, gaps.map((gap) => value(example.p, gap)), EXAMPLE, { width: 1.5, dash: 'dot' }));
      data.push(dot('your example', example.d, value(example.p, example.d), EXAMPLE, { symbol: 'diamond', size: 13 }));
    }
    const arrows = id === 'learn_loss' ? [[beta, DPO], [p, STEPWISE]].flatMap(([factor, name]) => arrow(d, loss(factor * d), pull(factor, d), far / 6, color(name))) : [];
    // Fixed, so that nothing jumps while a slider moves; only a point that lies outside stretches them.
    const marked = data.filter((trace) => trace.mode === 'markers').map((trace) => trace.y[0]);
    const range = id === 'learn_loss' ? [0, Math.max(6, ...marked.map((y) => y * 1.1))] : [-1, 1].map((sign) => sign * Math.max(5.5, ...marked.map((y) => Math.abs(y) * 1.1)));
    return {
      id, title, unit, what: props.value?.what?.[id] ?? null,
      figure: {
        data,
        dark: { colours: DARK },
        layout: {
          xaxis: { range: [-far, far], zeroline: true, title: { text: '← rejected · gap d, nats · chosen →', standoff: 6 } },
          yaxis: { range, zeroline: true, nticks: 6 },
          shapes: [wrongSide('x', -far, trapped)],
          annotations: [...arrows, ...words],
          showlegend: true,
          hovermode: 'x',
        },
      },
    };
  });
}

function trainingChart({ p, d, beta }) {
  const updates = Array.from({ length: UPDATES + 1 }, (_, i) => i);
  const [dpo, stepwise] = [descent(beta, d), descent(p, d)];
  const low = Math.min(-0.5, ...dpo, ...stepwise) * 1.1;
  const high = Math.max(0.5, ...dpo, ...stepwise) * 1.1;
  return [{
    id: 'learn_training', title: 'Where training takes the gap', unit: `gap d, nats, over ${UPDATES} steps of gradient descent at rate ${RATE}`,
    what: props.value?.what?.learn_training ?? null,
    figure: {
      data: [line('DPO', updates, dpo, DPO), line('step-wise', updates, stepwise, STEPWISE)],
      dark: { colours: DARK },
      layout: {
        xaxis: { range: [0, UPDATES], zeroline: false, title: { text: 'gradient step', standoff: 6 } },
        yaxis: { range: [low, high], zeroline: true, nticks: 6 },
        shapes: [wrongSide('y', low, p < 0)],
        annotations: p < 0 ? [{ x: 0.02, y: low, xref: 'paper', yref: 'y', xanchor: 'left', yanchor: 'bottom', text: 'rejected likelier', showarrow: false }] : [],
        showlegend: true,
        hovermode: 'x unified',
      },
    },
  }];
}

// Each group of charts is one call of plots.js, told of a new value by its own watcher.
function group(part) {
  const state = { value: { charts: [] } };
  let redraw = () => {};
  const box = { querySelector: () => element.querySelector(`[data-part="${part}"]`) };
  drawInto(box, state, () => {}, (_, callback) => { redraw = callback; });
  return (charts) => { state.value = { charts }; redraw(); };
}
const drawLosses = group('losses'), drawTraining = group('training');

function verdict({ p, d }, end) {
  if (p === 0) return 'p = 0: the step-wise loss is ln 2 everywhere and trains nothing.';
  const moved = `${signed(d, 2)} to ${signed(end, 2)} nats`;
  if (p > 0) return `p > 0: the step-wise loss raises the gap from ${moved}, towards chosen.`;
  return `p < 0: the step-wise loss lowers the gap from ${moved}, towards rejected, while the loss falls from ${loss(p * d).toFixed(3)} to ${loss(p * end).toFixed(3)}.`;
}

function update() {
  const now = { p: read('p'), d: read('d'), beta: read('beta') };
  for (const [name, digits] of [['p', 1], ['d', 2]]) sliders[name].closest('.learn-slider').querySelector('output').textContent = signed(now[name], digits);
  sliders.beta.closest('.learn-slider').querySelector('output').textContent = now.beta.toFixed(2);
  for (const [name, factor] of [['dpo', now.beta], ['stepwise', now.p]]) {
    const strength = pull(factor, now.d);
    set(`${name}-loss`, loss(factor * now.d).toFixed(3));
    set(`${name}-pull`, signed(strength, 3));
    set(`${name}-way`, way(strength));
  }
  const status = element.querySelector('.learn-verdict');
  status.textContent = verdict(now, descent(now.p, now.d).at(-1));
  status.classList.toggle('negative', now.p < 0);
  drawLosses(lossCharts(now, props.value?.example));
  drawTraining(trainingChart(now));
}

let asked = false;
function soon() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; update(); });
}

// A range input keeps to its own ends and steps.
function move(values) {
  for (const [name, value] of Object.entries(values)) sliders[name].value = String(value);
  soon();
}

for (const input of Object.values(sliders)) input.addEventListener('input', soon);
for (const button of element.querySelectorAll('[data-set]')) {
  button.addEventListener('click', () => {
    const [name, value] = button.dataset.set.split('=');
    move({ [name]: value });
  });
}
new MutationObserver(soon).observe(document.body, { attributes: true, attributeFilter: ['class'] });
const toExample = element.querySelector('[data-example]');
toExample.addEventListener('click', () => move(props.value.example));
function showExample() {
  const example = props.value?.example;
  toExample.disabled = !example;
  const beyond = ['p', 'd'].filter((name) => example && (example[name] > Number(sliders[name].max) || example[name] < Number(sliders[name].min)));
  set('beyond', beyond.map((name) => `${name} = ${signed(example[name], 2)} lies beyond the slider’s end.`).join(' '));
  soon();
}
watch('value', showExample);
showExample();
