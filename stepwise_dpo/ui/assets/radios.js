// Makes groups of Gradio's radios, on the whole page: each radio has a name of its own, so the browser sees no group, in
// which the arrow keys move and Tab stops once; and screen readers hear none, since its label is no legend.
// Gradio gives: element, props, trigger, watch.
const page = element.closest('#page');
let planned = false;

function group() {
  planned = false;
  for (const fields of page.querySelectorAll('fieldset')) {
    const radios = fields.querySelectorAll('input[type=radio]');
    if (!radios.length) continue;
    fields.setAttribute('role', 'radiogroup');
    fields.setAttribute('aria-label', fields.querySelector('[data-testid="block-info"]')?.textContent.trim() ?? '');
    for (const radio of radios) if (radio.name !== radios[0].name) radio.name = radios[0].name;
  }
}

// Gradio gives a radio another name each time that it is chosen or not any more: that can't wait, a key may follow. Tabs
// are drawn when they are first opened, and new choices are new radios: once a frame, since charts change all the time.
new MutationObserver((changes) => {
  if (changes.some((change) => change.type === 'attributes')) return group();
  if (!planned) requestAnimationFrame(group);
  planned = true;
}).observe(page, { childList: true, subtree: true, attributeFilter: ['name'] });
group();
