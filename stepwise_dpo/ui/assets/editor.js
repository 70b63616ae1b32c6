// Editor of one example: a prompt and two columns of steps. What is typed lives here, in a draft per example, until
// "Save example" sends it and the server accepts it.
// value: {"key", "index", "draft", "forget": [keys], "models": [names], "stamp"}
// All text goes into .value or .textContent, never into HTML. Gradio gives: element, props, trigger, watch, server.
const root = element.querySelector('.editor');
const ICONS = {
  up: 'M8 13V3.5M3.5 8 8 3.5 12.5 8',
  down: 'M8 3v9.5M3.5 8 8 12.5 12.5 8',
  insert: 'M8 3v10M3 8h10',
  split: 'M2 8h12M8 5.5V1.5M5.5 3.5 8 1.2l2.5 2.3M8 10.5v4M5.5 12.5 8 14.8l2.5-2.3',
  merge: 'M8 1v5M5.5 4 8 6.3 10.5 4M8 15v-5M5.5 12 8 9.7l2.5 2.3M2 8h1.5M12.5 8H14',
  remove: 'M4 4l8 8M12 4l-8 8',
  undo: 'M6 3 2.5 6.5 6 10M3 6.5h6.5a4 4 0 0 1 0 8H7',
  redo: 'M10 3l3.5 3.5L10 10M13 6.5H6.5a4 4 0 0 0 0 8H9',
};
const MODEL_KEY = 'stepwise-dpo/token-model';
const CHECK_DELAY = 250;
const COUNT_DELAY = 450;

let value = null; // what the server sent last
let draft = null; // what is on the screen
let sent = null; // what was sent to be saved, until the server says that it is: {key, draft}
let remarks = []; // the server's, of the draft as it was when they were asked for
let counts = null; // tokens
let storage = ''; // why the browser keeps nothing
let hint = ''; // what the last key or button has to say
let asked = 0;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, given] of Object.entries(attributes)) {
    if (name === 'text') node.textContent = given;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), given);
    else if (given !== false) node.setAttribute(name, given === true ? '' : given);
  }
  node.append(...children);
  return node;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

function grow(area) {
  area.style.height = 'auto';
  area.style.height = `${area.scrollHeight + 2}px`;
}

const row = (side, step) => root.querySelector(`[data-side="${side}"] [data-step="${step}"]`);
const field = (side, step) => (side === 'prompt' ? root.querySelector('.prompt-field textarea') : row(side, step)?.querySelector('textarea'));
const history = () => historyOf(value.key);
const isDirty = () => !same(draft, value.draft);

// ---------------------------------------------------------------------------------------------------------- changes

function typed(area, name, write) {
  history().record(draft, name);
  write(area.value);
  grow(area);
  changed();
}

// A change of more than one text: the columns are built anew, and the caret put where work goes on.
function restructured(act, side, step, caret) {
  history().record(draft);
  hint = act() || '';
  remarks = [];
  counts = null;
  SIDES.forEach(renderSide);
  changed();
  focusOn(side, step, caret);
}

function travel(next) {
  if (!next) return;
  const place = changedPlace(draft, next);
  draft = next;
  hint = '';
  remarks = [];
  renderDraft();
  changed();
  focusOn(place.side, place.step, place.caret);
}

function focusOn(side, step, caret) {
  const area = field(side, step);
  if (!area) return;
  area.focus();
  if (caret !== undefined) area.setSelectionRange(caret, caret);
}

function changed() {
  if (isDirty()) storage = keepDraft(value.key, draft, fingerprint(value.draft));
  else dropDraft(value.key);
  refresh();
  ask();
}

const ACTIONS = {
  up: (side, i) => restructured(() => draft[side].splice(i - 1, 0, ...draft[side].splice(i, 1)) && '', side, i - 1),
  down: (side, i) => restructured(() => draft[side].splice(i + 1, 0, ...draft[side].splice(i, 1)) && '', side, i + 1),
  insert: (side, i) => restructured(() => draft[side].splice(i + 1, 0, { text: '', label: null }) && '', side, i + 1),
  remove: (side, i) => restructured(() => draft[side].splice(i, 1) && '', side, Math.max(0, i - 1)),
  split(side, i) {
    const steps = structuredClone(draft[side]);
    const words = splitStep(steps, i, field(side, i).selectionStart);
    if (steps.length === draft[side].length) {
      hint = words;
      refresh();
      field(side, i).focus();
    } else restructured(() => { draft[side] = steps; return words; }, side, i + 1, 0);
  },
  merge(side, i) {
    const steps = structuredClone(draft[side]);
    const caret = mergeSteps(steps, i);
    restructured(() => { draft[side] = steps; return ''; }, side, i, caret);
  },
};

function save() {
  if (!isDirty()) return;
  sent = { key: value.key, draft: structuredClone(draft) };
  trigger('save', { key: value.key, index: value.index, draft: sent.draft });
}

function discard() {
  history().record(draft);
  travel(structuredClone(value.draft));
}

// --------------------------------------------------------------------------------------------------------- keyboard

root.addEventListener('keydown', (event) => {
  if (!draft || event.isComposing) return;
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  const act = (run) => { event.preventDefault(); run(); };
  if (control && !event.altKey && key === 'z') return act(() => travel(event.shiftKey ? history().redo(draft) : history().undo(draft)));
  if (control && !event.altKey && key === 'y') return act(() => travel(history().redo(draft)));
  if (control && !event.altKey && key === 's') return act(save);
  const place = event.target.closest?.('[data-step]');
  if (!place || event.target.tagName !== 'TEXTAREA') return undefined;
  const side = place.closest('[data-side]').dataset.side;
  const index = Number(place.dataset.step);
  const area = event.target;
  if (control && key === 'enter') return act(() => ACTIONS.split(side, index));
  if (event.altKey && key === 'enter') return act(() => ACTIONS.insert(side, index));
  if (event.altKey && key === 'arrowup' && index > 0) return act(() => ACTIONS.up(side, index));
  if (event.altKey && key === 'arrowdown' && index < draft[side].length - 1) return act(() => ACTIONS.down(side, index));
  // At the beginning of a step there is nothing to erase but the boundary; a key held down stops there.
  if (key === 'backspace' && !event.repeat && index > 0 && area.selectionStart === 0 && area.selectionEnd === 0) return act(() => ACTIONS.merge(side, index - 1));
  return undefined;
});

// The browser's own undo, from its menu, knows only one field, and nothing of rows.
root.addEventListener('beforeinput', (event) => {
  if (!draft || !['historyUndo', 'historyRedo'].includes(event.inputType)) return;
  event.preventDefault();
  travel(event.inputType === 'historyUndo' ? history().undo(draft) : history().redo(draft));
});

// -------------------------------------------------------------------------------------------- what the server knows

let checkTimer = 0;
let countTimer = 0;

function ask(at_once = false) {
  asked += 1;
  clearTimeout(checkTimer);
  clearTimeout(countTimer);
  checkTimer = setTimeout(check, at_once ? 0 : CHECK_DELAY);
  countTimer = setTimeout(count, at_once ? 0 : COUNT_DELAY);
}

async function answer(call) {
  const ticket = asked;
  try {
    const result = await call();
    return ticket === asked && root.isConnected ? result : null;
  } catch {
    return null; // the page says itself that the connection is lost; saving checks everything again
  }
}

async function check() {
  const found = await answer(() => server.check(draft));
  if (!Array.isArray(found)) return;
  remarks = found;
  refresh();
}

async function count() {
  const model = root.querySelector('.token-model')?.value;
  if (!model) return;
  const found = await answer(() => server.tokens({ model, draft }));
  if (!found) return;
  counts = found;
  refresh();
}

// --------------------------------------------------------------------------------------------------------- the page

function textArea(label, text, name, write) {
  const area = make('textarea', { rows: 1, 'aria-label': label, spellcheck: 'false', dir: 'auto' });
  area.value = text;
  area.addEventListener('input', () => typed(area, name, write));
  return area;
}

function iconButton(name, label, disabled, act) {
  return make('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, disabled, onclick: act }, icon(name));
}

function stepRow(side, title, index) {
  const steps = draft[side];
  const step = steps[index];
  const name = `${title} step ${index + 1}`;
  const lower = name[0].toLowerCase() + name.slice(1);
  const label = make('select', { 'aria-label': `${name} label`, title: 'Is this step right?' });
  for (const [code, text] of [['null', 'no label'], ['true', 'right'], ['false', 'wrong']]) label.append(make('option', { value: code, text }));
  label.value = String(step.label ?? null);
  label.addEventListener('change', () => { history().record(draft); draft[side][index].label = JSON.parse(label.value); changed(); });
  const area = textArea(name, step.text, `${side} ${index}`, (text) => { draft[side][index].text = text; });
  const notes = make('span', { class: 'row-notes', id: `note-${side}-${index}` });
  area.setAttribute('aria-describedby', notes.id);
  const button = (kind, words, disabled = false) => iconButton(kind, words, disabled, () => ACTIONS[kind](side, index));
  const last = index === steps.length - 1;
  return make('li', { class: 'edit-row', 'data-step': index },
    make('span', { class: 'number', text: index + 1 }),
    area,
    label,
    make('span', { class: 'row-foot' },
      make('span', { class: 'tokens' }),
      make('span', { class: 'tag', text: 'first error (label)', hidden: true }),
      notes,
      make('span', { class: 'row-buttons' },
        button('up', `Move ${lower} up`, index === 0),
        button('down', `Move ${lower} down`, last),
        button('split', `Split ${lower} at the caret`),
        button('merge', `Merge ${lower} with the next`, last),
        button('insert', `Insert a step after ${lower}`),
        button('remove', `Delete ${lower}`, steps.length === 1))));
}

function renderSide([side, title]) {
  const column = root.querySelector(`[data-side="${side}"]`);
  column.querySelector('ol').replaceChildren(...draft[side].map((_, index) => stepRow(side, title, index)));
  column.querySelectorAll('textarea').forEach(grow);
}

function renderDraft() {
  const prompt = field('prompt');
  prompt.value = draft.prompt;
  grow(prompt);
  SIDES.forEach(renderSide);
}

function modelSelect() {
  const select = make('select', { class: 'token-model', 'aria-label': 'Count tokens of' });
  for (const name of value.models ?? []) select.append(make('option', { value: name, text: name }));
  try {
    const kept = localStorage.getItem(MODEL_KEY);
    if (value.models?.includes(kept)) select.value = kept;
  } catch {
    hint = ''; // the first model it is
  }
  select.addEventListener('change', () => {
    try {
      localStorage.setItem(MODEL_KEY, select.value);
    } catch {
      hint = 'Your browser will not remember this model.';
    }
    counts = null;
    refresh();
    ask(true);
  });
  return select;
}

function renderFrame() {
  const prompt = textArea('Prompt', draft.prompt, 'prompt', (text) => { draft.prompt = text; });
  prompt.setAttribute('aria-describedby', 'note-prompt');
  const columns = SIDES.map(([side, title]) => make('section', { class: 'edit-side', 'data-side': side, 'aria-label': title },
    make('header', {}, make('h3', { text: title }), make('span', { class: 'count' })),
    make('p', { class: 'side-notes' }),
    make('ol', { class: 'edit-rows' })));
  root.replaceChildren(
    make('div', { class: 'prompt-field' },
      make('div', { class: 'prompt-head' }, make('b', { class: 'example-number' }), make('span', { class: 'tokens' }),
        make('label', { class: 'token-choice' }, make('span', { text: 'tokens of' }), modelSelect())),
      prompt,
      make('p', { class: 'side-notes', id: 'note-prompt' })),
    make('p', { class: 'side-notes both' }),
    make('div', { class: 'edit-sides' }, ...columns),
    make('footer', { class: 'editor-bar' },
      make('button', { type: 'button', class: 'button primary needs-changes', text: 'Save example', onclick: save }),
      make('button', { type: 'button', class: 'button needs-changes', text: 'Discard changes', onclick: discard }),
      iconButton('undo', 'Undo typing (Ctrl+Z)', false, () => travel(history().undo(draft))),
      iconButton('redo', 'Redo typing (Ctrl+Shift+Z)', false, () => travel(history().redo(draft))),
      make('span', { class: 'editor-state', role: 'status' })));
}

// Everything that depends on the draft and is no text field: done after every key, so nothing is built anew.
function refresh() {
  root.querySelector('.example-number').textContent = `Example ${value.index + 1}`;
  const known = [...blankNotes(draft), ...remarks.filter(({ side, step, error }) => !error || !isBlank(side === 'prompt' ? draft.prompt : draft[side]?.[step]?.text ?? 'x'))];
  const noted = (side, step) => known.filter((note) => note.side === side && note.step === step);
  const write = (place, notes) => {
    const words = notes.map((note) => note.words).join('; ');
    if (place.textContent !== words) place.textContent = words;
    place.classList.toggle('error', notes.some((note) => note.error));
  };
  const line = divergenceOf(draft);
  write(root.querySelector('#note-prompt'), noted('prompt', null));
  field('prompt').setAttribute('aria-invalid', String(noted('prompt', null).some((note) => note.error)));
  write(root.querySelector('.side-notes.both'), noted('', null));
  for (const [side] of SIDES) {
    const column = root.querySelector(`[data-side="${side}"]`);
    const steps = draft[side];
    const tokens = counts?.[side]?.length === steps.length ? counts[side] : null;
    const total = tokens ? ` · ${tokens.reduce((sum, n) => sum + n, 0)} tokens` : '';
    column.querySelector('.count').textContent = `${steps.length} step${steps.length === 1 ? '' : 's'}${total}`;
    write(column.querySelector('.side-notes'), noted(side, null));
    const wrong = firstErrorOf(steps);
    steps.forEach((step, index) => {
      const here = row(side, index);
      const notes = [...noted(side, index), ...noted('', index)];
      write(here.querySelector('.row-notes'), notes);
      here.querySelector('textarea').setAttribute('aria-invalid', String(notes.some((note) => note.error)));
      here.querySelector('.tokens').textContent = tokens ? `${tokens[index]} token${tokens[index] === 1 ? '' : 's'}` : '';
      here.querySelector('.tag').hidden = index !== wrong;
      here.dataset.label = here.querySelector('select').dataset.label = String(step.label ?? null);
    });
    let mark = column.querySelector('.diverges');
    if (line === null) mark?.remove();
    else {
      mark ??= make('li', { class: 'diverges', text: 'diverges here' });
      const before = row(side, line);
      if (before.previousElementSibling !== mark) before.before(mark);
    }
  }
  root.querySelector('.prompt-head .tokens').textContent = counts?.problem ?? (typeof counts?.prompt === 'number' ? `prompt: ${counts.prompt} tokens` : 'counting tokens…');
  showState(known);
}

function showState(known) {
  const dirty = isDirty();
  const state = root.querySelector('.editor-state');
  const errors = known.filter((note) => note.error).length;
  const stale = dirty && drafts.get(value.key)?.base !== fingerprint(value.draft);
  const words = [dirty ? 'Unsaved changes' : 'No unsaved changes'];
  if (stale) words[0] = 'Unsaved changes to an earlier version';
  if (errors) words.push(`${errors} to put right`);
  if (dirty && storage) words.push(storage);
  if (hint) words.push(hint);
  const text = words.join(' · ');
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle('dirty', dirty);
  for (const button of root.querySelectorAll('.needs-changes')) button.disabled = !dirty;
  root.querySelector('[aria-label^="Undo typing"]').disabled = !history().past.length;
  root.querySelector('[aria-label^="Redo typing"]').disabled = !history().future.length;
}

function receive() {
  const next = props.value;
  for (const key of next?.forget ?? []) {
    // Whoever typed on while it was being saved keeps that; it is a change of the saved version now. Between a save and
    // its answer other values may come, or another example be opened.
    const now = drafts.get(key)?.draft;
    const typedOn = now && key === sent?.key && !same(now, sent.draft);
    if (typedOn) keepDraft(key, now, fingerprint(key === next.key ? next.draft : sent.draft));
    else dropDraft(key);
    if (key === sent?.key) sent = null;
  }
  if (!next?.draft) {
    value = draft = null;
    root.replaceChildren();
    return;
  }
  const shown = structuredClone(drafts.get(next.key)?.draft ?? next.draft);
  const stays = draft && value.key === next.key && same(draft, shown);
  const others = stays && !same(value.models, next.models);
  value = next;
  draft = shown;
  hint = '';
  if (!stays) {
    remarks = [];
    counts = null;
    renderFrame();
    renderDraft();
  } else if (others) root.querySelector('.token-model').replaceWith(modelSelect());
  refresh();
  ask(!stays || others);
}

// A column that was hidden, or changed its width, wraps its text anew.
let width = 0;
new ResizeObserver(() => {
  if (root.clientWidth === width) return;
  width = root.clientWidth;
  root.querySelectorAll('textarea').forEach(grow);
}).observe(root);
watch('value', receive);
receive();
told(); // the table may have been there first
