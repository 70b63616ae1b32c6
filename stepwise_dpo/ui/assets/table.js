// The table of examples: rows are chosen, columns sorted and pages turned by click or keyboard. The HTML is made in
// Python (examples_table.py), where all text is escaped. Which examples have unsaved text is known here only.
// Gradio gives: element, props, trigger, watch.
const box = element;
let focusNext = null; // what to focus in the next value, since each value replaces the table

const rows = () => [...box.querySelectorAll('tbody tr[data-key]')];

function choose(row) {
  // At once, not after the server's answer.
  for (const other of rows()) other.setAttribute('aria-selected', String(other === row));
  roam(row);
  trigger('choose', { key: row.dataset.key });
}

// One row is in the tab order; arrows move between rows.
function roam(row) {
  for (const other of rows()) other.querySelector('button').tabIndex = other === row ? 0 : -1;
}

function ask(what, selector) {
  focusNext = selector;
  trigger('look', what);
}

box.addEventListener('click', (event) => {
  const sort = event.target.closest('[data-sort]');
  const page = event.target.closest('[data-page]');
  const unsaved = event.target.closest('[data-unsaved]');
  const row = event.target.closest('tr[data-key]');
  if (sort) ask({ sort: sort.dataset.sort }, `[data-sort="${sort.dataset.sort}"]`);
  else if (page) ask({ page: Number(page.dataset.page) }, `[data-page][aria-label="${page.getAttribute('aria-label')}"]`);
  else if (unsaved) trigger('choose', { example: unsaved.dataset.unsaved });
  else if (row && !getSelection().toString()) choose(row);
});

box.addEventListener('keydown', (event) => {
  const row = event.target.closest('tr[data-key]');
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = rows();
  const target = { ArrowDown: all[all.indexOf(row) + 1], ArrowUp: all[all.indexOf(row) - 1], Home: all[0], End: all.at(-1) }[event.key];
  if (!target) return;
  event.preventDefault();
  roam(target);
  target.querySelector('button').focus();
});

// Rows with unsaved text say so; other examples that have some are offered beside the count.
function markUnsaved() {
  const root = box.querySelector('.examples');
  const place = box.querySelector('.unsaved');
  if (!root || !place) return;
  const prefix = `${root.dataset.set}\n`;
  const ids = [...(window.stepwiseDrafts?.keys() ?? [])].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
  for (const row of rows()) {
    const has = ids.includes(row.dataset.example);
    const badge = row.querySelector('.badge.draft');
    if (has && !badge) {
      const made = document.createElement('span');
      made.className = 'badge draft';
      made.textContent = 'unsaved text';
      row.querySelector('.col-notes').prepend(made);
    } else if (!has) badge?.remove();
  }
  const listed = new Set(rows().map((row) => row.dataset.example));
  const others = ids.filter((id) => !listed.has(id));
  place.replaceChildren();
  if (!others.length) return;
  const button = document.createElement('button');
  button.type = 'button';
  button.dataset.unsaved = prefix + others[0];
  button.textContent = others.length === 1 ? 'Show the other example with unsaved text' : `Show the next of ${others.length} others with unsaved text`;
  place.append(button);
}

// The box is replaced with every new value; its scroll position and its height are carried over.
let scrolled = 0;
let height = '';
box.addEventListener('scroll', (event) => { if (event.target.classList?.contains('examples-box')) scrolled = event.target.scrollTop; }, true);
window.addEventListener('pointerup', () => { height = box.querySelector('.examples-box')?.style.height ?? ''; });

function shown() {
  const pane = box.querySelector('.examples-box');
  if (!pane) return;
  if (height) pane.style.height = height;
  const current = pane.querySelector('[aria-selected="true"]');
  roam(current ?? rows()[0]);
  pane.scrollTop = focusNext ? 0 : scrolled;
  if (current && !focusNext) {
    // Not scrollIntoView: that would also scroll the page.
    const head = pane.querySelector('thead').offsetHeight;
    const top = current.offsetTop - head;
    if (top < pane.scrollTop) pane.scrollTop = top;
    else if (current.offsetTop + current.offsetHeight > pane.scrollTop + pane.clientHeight) pane.scrollTop = current.offsetTop + current.offsetHeight - pane.clientHeight;
  }
  if (focusNext) {
    const target = box.querySelector(focusNext);
    (target?.disabled ? box.querySelector('.pager button:not(:disabled)') : target)?.focus({ preventScroll: true });
  }
  focusNext = null;
  markUnsaved();
}

window.addEventListener('stepwise-drafts', markUnsaved);
watch('value', shown);
shown();
