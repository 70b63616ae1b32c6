// Asks the server all the time whether a run of this visitor has moved, and lets the page look only when one has.
// By a request of its own: for each event Gradio's script goes several times through the components of the page.
// value: {"visitor", "seconds": from one answer to the next question, "stamp"}, sent again by each look.
// Gives the event "moved". Gradio gives: element, props, server, trigger, watch.
const IDLE = 2; // times as long, where no run is at work
const RETRY_SECONDS = 2;
const PATIENCE_SECONDS = 30;
let known; // what the last answer said
let told = 0; // when the page was told to look; 0 while it isn't looking
let timer = 0;

function again(seconds) {
  clearTimeout(timer);
  timer = setTimeout(ask, seconds * 1000);
}

async function ask() {
  const { visitor, seconds } = props.value ?? {};
  if (document.hidden || !visitor) return again(RETRY_SECONDS);
  if (told) { known = undefined; told = 0; } // the last look was never answered: it is due again
  let answer;
  try {
    answer = await server.newest(visitor);
  } catch {
    known = undefined; // another server may answer next, which doesn't know this page
    return again(RETRY_SECONDS); // the page says itself that the connection is lost
  }
  if (answer.standing === known) return again(answer.active ? seconds : IDLE * seconds);
  known = answer.standing;
  told = performance.now();
  trigger('moved', {});
  again(PATIENCE_SECONDS); // should there be no answer
}

// The look is over once what it brought is drawn. A browser that was slow to do so gets as much time for the rest.
watch('value', () => {
  if (!told) return again(0);
  requestAnimationFrame(() => setTimeout(() => {
    again(Math.max(props.value.seconds, (performance.now() - told) / 1000));
    told = 0;
  }));
});
document.addEventListener('visibilitychange', () => { if (!document.hidden && !told) ask(); });
