// Keeps the address bar in step with what is open. The server knows all of it but the tab, which is known here.
// value: {name: text}, where "" is left out of the address, or null until the page has arrived where its address leads;
// {"lost": true} when the server has no state for this page: not yet, or no longer.
// Gives the event "follow" after all that a visitor does: a page whose state the server has lost finds that out. A clock
// would cost the browser a tenth of a core, all day. Gradio gives: element, props, trigger, watch.
const FOLLOW_SECONDS = 1;
const openTab = () => document.querySelector('#tabs [role="tab"][aria-selected="true"]')?.dataset.tabId;

let arrived = false;
let timer = 0;

function follow() {
  clearTimeout(timer);
  timer = setTimeout(() => trigger('follow', {}), FOLLOW_SECONDS * 1000);
}

for (const kind of ['pointerup', 'keyup', 'change', 'drop', 'popstate']) addEventListener(kind, follow, { capture: true });

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
