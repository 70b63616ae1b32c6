// The first steps: each opens its tab; "Got it" hides them for this browser.
// Gradio gives: element, trigger.
element.addEventListener('click', (event) => {
  if (event.target.closest('.welcome-close')) {
    document.documentElement.classList.add('welcomed');
    try { localStorage.setItem('stepwise-dpo-welcomed', '1'); } catch { /* A browser that keeps nothing shows them again. */ }
    return;
  }
  const step = event.target.closest('[data-tab]');
  if (step) trigger('choose', { key: step.dataset.tab });
});
