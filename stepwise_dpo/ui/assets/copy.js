// A "Copy" button stands in the heading before its code; Gradio gives: element, props, trigger, watch.
element.addEventListener('click', async (event) => {
  const button = event.target.closest('.copy');
  if (!button) return;
  let code = button.parentElement.nextElementSibling;
  while (code && code.tagName !== 'PRE') code = code.nextElementSibling;
  if (!code) return;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = 'Copied';
  } catch {
    // Without https, or where the browser refuses: select it, so that Ctrl-C takes it.
    getSelection().selectAllChildren(code);
    button.textContent = 'Selected';
  }
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
});
