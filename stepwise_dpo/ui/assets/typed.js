// Keeps what is typed into the free-text fields in this browser, so that a refresh loses nothing. Not by the server: an
// answer of it could come after the next key. Gradio gives: element, props, trigger, watch.
const KEY = 'stepwise-dpo-judged-text';
const box = element.closest('#rewards-typed-fields');
const fields = () => [...box.querySelectorAll('textarea')];

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? '[]');
    return Array.isArray(kept) ? kept : [];
  } catch {
    return []; // no storage, or not ours
  }
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(fields().map((field) => field.value)));
  } catch {
    // no storage: it lasts until the page is left
  }
}

function restore() {
  const found = fields();
  if (found.length < 2) return setTimeout(restore, 50); // not drawn yet
  if (found.some((field) => field.value)) return undefined;
  read().forEach((text, i) => {
    if (typeof text !== 'string' || !text || !found[i]) return;
    found[i].value = text;
    found[i].dispatchEvent(new Event('input', { bubbles: true }));
  });
  return undefined;
}

box.addEventListener('input', keep);
restore();
