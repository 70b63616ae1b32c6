// The table of runs, updated in place: what somebody types, or is asked to confirm, outlasts every update.
// value: {"head", "page", "pages", "several", "rows": [...]}, see run_table.py. All text is set as textContent.
// Events: 'open' {key}, 'overlay' {key, on}, 'note' {key, text}, 'act' {key, act: again | load | delete}, 'turn' {page}.
// Gradio gives: element, props, trigger, watch.
const root = element.querySelector('.run-table');
const MAX_NOTE = 300;
const HEADS = ['Draw', 'Run', 'State', 'Progress', 'Loss', 'Before → after', 'What differs', 'Note', 'Actions'];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') node.textContent = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const button = (text, onclick, kind = '') => make('button', { type: 'button', class: `link ${kind}`, text, onclick });

function svg() {
  const picture = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  picture.setAttribute('viewBox', '0 0 96 22');
  picture.setAttribute('class', 'spark');
  picture.setAttribute('aria-hidden', 'true');
  picture.append(document.createElementNS('http://www.w3.org/2000/svg', 'path'));
  return picture;
}

const explained = Object.fromEntries([...root.children].map((words) => [words.dataset.head, words]));
const head = make('p', { class: 'list-head', role: 'status' });
const hint = make('span', { class: 'hint' });
const newer = button('Newer', () => trigger('turn', { page: props.value.page - 1 }));
const older = button('Older', () => trigger('turn', { page: props.value.page + 1 }));
const body = make('tbody');
root.append(
  make('div', { class: 'run-table-head' }, make('h3', { class: 'section', text: 'Runs' }), head, hint, make('span', { class: 'pager' }, newer, older)),
  make('div', { class: 'table-box' },
    make('table', {}, make('thead', {}, make('tr', {}, ...HEADS.map((text) => make('th', { text, scope: 'col' }, ...(explained[text] ? [explained[text]] : []))))), body)));

// What a click in the table changes may be above what is seen.
const show = (selector) => document.querySelector(selector)?.scrollIntoView({ block: 'nearest' });

function confirming(row, ask) {
  row.querySelector('.actions').hidden = ask;
  row.querySelector('.confirm').hidden = !ask;
}

function newRow(key) {
  const act = (name) => () => {
    trigger('act', { key, act: name });
    if (name === 'again') document.querySelector('#train-head')?.scrollIntoView({ block: 'nearest' }); // far above
    if (name === 'load') show('#train-preset');
  };
  const box = make('input', { type: 'checkbox', class: 'draw', onchange: () => trigger('overlay', { key, on: box.checked }) });
  const note = make('input', { type: 'text', class: 'note', maxlength: MAX_NOTE, placeholder: 'add a note', onchange: () => trigger('note', { key, text: note.value }) });
  note.addEventListener('keydown', (event) => { if (event.key === 'Enter') note.blur(); });
  const keep = button('Keep', () => { confirming(row, false); row.querySelector('.ask').focus(); });
  const row = make('tr', { 'data-run': key },
    make('td', {}, make('label', { class: 'draw-box' }, box, make('i'))),
    make('th', { scope: 'row' }, make('button', { type: 'button', class: 'link name', onclick: () => { trigger('open', { key }); show('#train-head'); } })),
    make('td', {}, make('span', { class: 'run-state' }, make('span', { class: 'dot' }), make('span', { class: 'words' }))),
    make('td', { class: 'progress' }, make('span', { class: 'bar' }, make('i')), make('span', { class: 'words' })),
    make('td', { class: 'loss' }, svg(), make('span', { class: 'words' })),
    make('td', { class: 'result' }),
    make('td', { class: 'differs' }),
    make('td', {}, note),
    make('td', { class: 'act' },
      make('span', { class: 'actions' },
        button('Load into form', act('load')),
        button('Run again', act('again')),
        button('Delete', () => { confirming(row, true); keep.focus(); }, 'ask')),
      make('span', { class: 'confirm', role: 'alert' },
        make('span', { text: 'Delete for good?' }), button('Delete', act('delete'), 'warn'), keep)));
  confirming(row, false);
  row.addEventListener('keydown', (event) => { if (event.key === 'Escape' && !row.querySelector('.confirm').hidden) keep.click(); });
  return row;
}

function set(node, text) { if (node.textContent !== text) node.textContent = text; }

function fill(row, run, several) {
  row.style.setProperty('--dot', run.colour);
  row.style.setProperty('--dot-dark', run.dark);
  row.classList.toggle('opened', run.opened);
  const box = row.querySelector('.draw');
  box.checked = run.overlaid;
  box.disabled = run.opened;
  box.setAttribute('aria-label', run.opened ? `${run.name} is open and drawn` : `Draw ${run.name} as well`);
  const name = row.querySelector('.name');
  set(name, run.name);
  name.setAttribute('aria-current', String(run.opened));
  const state = row.querySelector('.run-state .words');
  set(state, run.state);
  state.classList.toggle('warn', run.warns);
  const bar = row.querySelector('.progress .bar');
  bar.hidden = !run.active;
  bar.firstChild.style.width = `${run.progress * 100}%`;
  set(row.querySelector('.progress .words'), run.steps);
  row.querySelector('.spark').style.visibility = run.spark ? '' : 'hidden';
  row.querySelector('.spark path').setAttribute('d', run.spark);
  set(row.querySelector('.loss .words'), run.loss);
  set(row.querySelector('.result'), run.result);
  row.querySelector('.result').title = run.intervals;
  const differs = row.querySelector('.differs');
  const words = run.differs === null ? (run.opened ? (several ? '' : 'the others are compared with this run') : 'can’t be read')
    : run.differs.length ? run.differs.join(' · ') : 'nothing';
  set(differs, words);
  differs.title = run.all; // only where the words are cut
  differs.classList.toggle('quiet', !run.differs?.length);
  const note = row.querySelector('.note');
  note.setAttribute('aria-label', `Note on ${run.name}`);
  // What is being typed isn't overwritten; neither is what the server hasn't answered yet.
  if (document.activeElement !== note && note.dataset.saved !== run.note) { note.value = run.note; note.dataset.saved = run.note; }
  note.title = run.note;
  for (const action of row.querySelectorAll('.actions .link')) action.setAttribute('aria-label', `${action.textContent}: ${run.name}`);
  const ask = row.querySelector('.ask');
  ask.disabled = run.active;
  ask.title = run.active ? 'Stop or discard it first' : '';
}

function draw() {
  const { head: words = '', page = 0, pages = 1, several = false, rows = [] } = props.value ?? {};
  set(head, words);
  set(hint, rows.length > 1 ? 'Tick runs to draw them over the opened one.' : '');
  newer.disabled = page === 0;
  older.disabled = page >= pages - 1;
  newer.parentElement.hidden = pages < 2;
  root.hidden = !rows.length;
  const known = new Map([...body.children].map((row) => [row.dataset.run, row]));
  rows.forEach((run, i) => {
    const row = known.get(run.id) ?? newRow(run.id);
    known.delete(run.id);
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null);
    fill(row, run, several);
  });
  for (const row of known.values()) row.remove();
}

watch('value', draw);
draw();
