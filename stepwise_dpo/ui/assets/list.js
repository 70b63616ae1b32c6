// A list whose items are chosen by a click or the keyboard; the items are buttons with data-key, made in Python, and
// with data-opens, the id of the part that shows what was chosen, where the list is long.
// Gradio gives: element, props, trigger, watch.
const box = element;

function keepInView() {
  const current = box.querySelector('[aria-current="true"]');
  const pane = box.querySelector('.list-pane');
  if (!current || !pane) return;
  // Not scrollIntoView: that would also scroll the page.
  const top = current.getBoundingClientRect().top - pane.getBoundingClientRect().top + pane.scrollTop;
  if (top < pane.scrollTop) pane.scrollTop = top;
  else if (top + current.offsetHeight > pane.scrollTop + pane.clientHeight) pane.scrollTop = top + current.offsetHeight - pane.clientHeight;
}

box.addEventListener('click', (event) => {
  const item = event.target.closest('[data-key]');
  if (!item) return;
  // At once, not after the server's answer.
  for (const other of box.querySelectorAll('[aria-current="true"]')) other.setAttribute('aria-current', 'false');
  item.setAttribute('aria-current', 'true');
  trigger('choose', { key: item.dataset.key });
  // Where the page is one column, what it opens is far below.
  if (item.dataset.opens && matchMedia('(max-width: 900px)').matches) document.getElementById(item.dataset.opens)?.scrollIntoView();
});

// All of it is replaced with every new value; its scroll position is carried over, and the place of the keyboard.
let scrolled = 0;
let focused = ''; // the key of what has the focus, also while its successor is still to come
box.addEventListener('focusin', ({ target }) => { focused = target.closest('[data-key]')?.dataset.key ?? ''; });
box.addEventListener('focusout', ({ target }) => setTimeout(() => {
  if (target.isConnected && !box.contains(document.activeElement)) focused = '';
}));
box.addEventListener('scroll', (event) => { if (event.target.classList?.contains('list-pane')) scrolled = event.target.scrollTop; }, true);
watch('value', () => {
  const pane = box.querySelector('.list-pane');
  if (pane) pane.scrollTop = scrolled;
  keepInView();
  if (focused && document.activeElement === document.body) {
    box.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
});
keepInView();
