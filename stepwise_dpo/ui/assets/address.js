// Keeps the address bar in step with what is open. The server knows set, example and run; the tab is known here.
// value: {"set", "example", "run"}, or null until the page has arrived where its address leads; {"lost": true} when the
// server has no state for this page: not yet, or no longer.
// Gradio gives: element, props, watch.
const openTab = () => document.querySelector('#tabs [role="tab"][aria-selected="true"]')?.dataset.tabId;

let arrived = false;

function write() {
  if (!props.value) return;
  if (props.value.lost) {
    if (arrived) location.reload(); // the server was restarted, or let go of pages that were idle for long
    return;
  }
  arrived = true;
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
