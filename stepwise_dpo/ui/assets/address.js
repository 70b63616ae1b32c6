// Keeps the address bar in step with what is open. The server knows set, example and run; the tab is known here.
// value: {"set", "example", "run"}, or null until the page has arrived where its address leads.
// Gradio gives: element, props, watch.
const openTab = () => document.querySelector('#tabs [role="tab"][aria-selected="true"]')?.dataset.tabId;

function write() {
  if (!props.value) return;
  const address = new URL(location.href);
  for (const [name, value] of Object.entries({ tab: openTab(), ...props.value })) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  if (address.href !== location.href) history.replaceState(history.state, '', address);
}

// The whole page, since the tabs may not be there yet.
new MutationObserver(write).observe(document.body, { attributes: true, subtree: true, attributeFilter: ['aria-selected'] });
watch('value', write);
write();
