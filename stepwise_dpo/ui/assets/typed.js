// Keeps what is typed into a tab's text areas in this browser, so that a refresh loses nothing. Not by the server: an
// answer of it could come after the next key. The tab reads it back, see kept_text.py, which also gives key, most and
// around. Gradio gives: element, props, trigger, watch.
const box = element.closest(around);

box.addEventListener('input', ({ target }) => {
  if (target.tagName !== 'TEXTAREA') return;
  try {
    const texts = [...box.querySelectorAll('textarea')].map((field) => field.value);
    if (texts.join('').length > most) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(texts));
  } catch {
    // no storage: it lasts until the page is left
  }
});
