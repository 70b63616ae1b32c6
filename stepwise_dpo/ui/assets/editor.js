// Editor of one example: a prompt and two columns of steps. What is typed lives here, in a draft per example that
// outlasts a change of example or tab, until "Save example" sends it and the server accepts it.
// value: {"key", "index", "draft": {"prompt", "chosen": [{"text", "label"}], "rejected": [...]}, "forget": [keys], "stamp"}
// All text goes into .value or .textContent, never into HTML. Gradio gives: element, props, trigger, watch.
const root = element.querySelector('.editor');
const drafts = (window.stepwiseDrafts ??= new Map());
const SIDES = [['chosen', 'Chosen'], ['rejected', 'Rejected']];
const ICONS = {
  up: 'M8 13V3.5M3.5 8 8 3.5 12.5 8',
  down: 'M8 3v9.5M3.5 8 8 12.5 12.5 8',
  insert: 'M8 3v10M3 8h10',
  remove: 'M4 4l8 8M12 4l-8 8',
};
let draft = null;

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') node.textContent = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== false) node.setAttribute(name, value === true ? '' : value);
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

function changed() {
  const value = props.value;
  const dirty = !same(draft, value.draft);
  if (dirty) drafts.set(value.key, structuredClone(draft));
  else drafts.delete(value.key);
  root.querySelector('.editor-state').textContent = dirty ? 'Unsaved changes' : 'No unsaved changes';
  root.querySelector('.editor-state').classList.toggle('dirty', dirty);
  for (const button of root.querySelectorAll('.needs-changes')) button.disabled = !dirty;
}

function textArea(label, text, write) {
  const area = make('textarea', { rows: 1, 'aria-label': label, spellcheck: 'false', dir: 'auto' });
  area.value = text;
  area.addEventListener('input', () => { write(area.value); grow(area); changed(); });
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
  for (const [value, text] of [['null', 'no label'], ['true', 'right'], ['false', 'wrong']]) label.append(make('option', { value, text }));
  label.value = String(step.label ?? null);
  const tint = () => { label.dataset.label = label.value; };
  label.addEventListener('change', () => { step.label = JSON.parse(label.value); tint(); changed(); });
  tint();
  const edit = (act, focus) => () => { act(); renderSide(side, title); changed(); root.querySelector(`[data-side="${side}"] [data-step="${focus}"] textarea`)?.focus(); };
  const swap = (other) => edit(() => { [steps[index], steps[other]] = [steps[other], steps[index]]; }, other);
  return make('li', { class: 'edit-row', 'data-step': index },
    make('span', { class: 'number', text: index + 1 }),
    textArea(name, step.text, (text) => { step.text = text; }),
    label,
    make('span', { class: 'row-buttons' },
      iconButton('up', `Move ${lower} up`, index === 0, swap(index - 1)),
      iconButton('down', `Move ${lower} down`, index === steps.length - 1, swap(index + 1)),
      iconButton('insert', `Insert a step after ${lower}`, false, edit(() => steps.splice(index + 1, 0, { text: '', label: null }), index + 1)),
      iconButton('remove', `Delete ${lower}`, steps.length === 1, edit(() => steps.splice(index, 1), Math.max(0, index - 1)))));
}

function renderSide(side, title) {
  const column = root.querySelector(`[data-side="${side}"]`);
  const count = draft[side].length;
  column.querySelector('.count').textContent = `${count} step${count === 1 ? '' : 's'}`;
  column.querySelector('ol').replaceChildren(...draft[side].map((_, index) => stepRow(side, title, index)));
  column.querySelectorAll('textarea').forEach(grow);
}

function render() {
  const value = props.value;
  for (const key of value?.forget ?? []) drafts.delete(key);
  if (!value?.draft) { root.replaceChildren(); return; }
  draft = structuredClone(drafts.get(value.key) ?? value.draft);
  const prompt = textArea('Prompt', draft.prompt, (text) => { draft.prompt = text; });
  const columns = SIDES.map(([side, title]) => make('section', { class: 'edit-side', 'data-side': side },
    make('header', {}, make('h3', { text: title }), make('span', { class: 'count' })),
    make('ol', { class: 'edit-rows' })));
  root.replaceChildren(
    make('label', { class: 'prompt-field' }, make('span', { text: 'Prompt' }), prompt),
    make('div', { class: 'edit-sides' }, ...columns),
    make('footer', { class: 'editor-bar' },
      make('button', { type: 'button', class: 'button primary needs-changes', text: 'Save example', onclick: () => trigger('save', { key: value.key, index: value.index, draft }) }),
      make('button', { type: 'button', class: 'button needs-changes', text: 'Discard changes', onclick: () => { drafts.delete(value.key); render(); } }),
      make('span', { class: 'editor-state', role: 'status' })));
  for (const [side, title] of SIDES) renderSide(side, title);
  grow(prompt);
  changed();
}

// A column that was hidden, or changed its width, wraps its text anew.
let width = 0;
new ResizeObserver(() => {
  if (root.clientWidth === width) return;
  width = root.clientWidth;
  root.querySelectorAll('textarea').forEach(grow);
}).observe(root);
window.onbeforeunload = () => (drafts.size ? true : undefined);
watch('value', render);
render();
