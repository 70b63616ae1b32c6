// Keeps what is typed into the free-text fields in this browser, so that a refresh loses nothing. Not by the server: an
// answer of it could come after the next key. The tab reads it back. Gradio gives: element, props, trigger, watch.
const box = element.closest('#rewards-typed-fields');

box.addEventListener('input', () => {
  try {
    const texts = [...box.querySelectorAll('textarea')].map((field) => field.value);
    localStorage.setItem('stepwise-dpo-judged-text', JSON.stringify(texts));
  } catch {
    // no storage: it lasts until the page is left
  }
});
