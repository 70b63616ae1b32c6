// Arrow keys for Gradio's radio groups: each of its radios has a name of its own, so the browser sees no group.
// Gradio gives: element, props, trigger, watch.
const box = element.closest('#rewards-example');
const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

box.addEventListener('keydown', (event) => {
  const step = steps[event.key];
  const group = event.target.closest?.('.segments');
  if (!step || !group || event.target.type !== 'radio') return;
  event.preventDefault();
  const radios = [...group.querySelectorAll('input[type=radio]')];
  const next = radios[(radios.indexOf(event.target) + step + radios.length) % radios.length];
  next.focus();
  next.click();
});
