// Asks the server all the time whether a run of this visitor has moved, and lets the page look only when one has.
// By a request of its own: for each event Gradio's script goes several times through the components of the page.
// value: {"visitor", "standing", "over": what the last look saw, "seconds", "idle", "beginning": from one answer to the
// next question, with a run at work, without one, and in the first seconds of one, "stamp"}, sent again by each look.
// Gives the events "moved", and "ended" where another run than before is over. Gradio gives: element, props, server, trigger, watch.
const RETRY_SECONDS = 2;
const PATIENCE_SECONDS = 30;
const LONGEST_PAUSE_SECONDS = 5;
let asked = 0; // how many questions; only the last one's answer counts
let told = 0; // when the page was told to look; 0 while it isn't looking
let timer = 0;
let over; // which runs the last answer called over; at first those that the page was opened with

function again(seconds) {
  clearTimeout(timer);
  timer = setTimeout(ask, seconds * 1000);
}

function look() {
  told = performance.now();
  trigger('moved', {});
  again(PATIENCE_SECONDS); // should there be no answer
}

async function ask() {
  const { visitor, standing } = props.value ?? {};
  const mine = ++asked;
  told = 0; // a look that was never answered is over
  if (document.hidden || !visitor) return again(RETRY_SECONDS);
  again(PATIENCE_SECONDS);
  let answer;
  try {
    answer = await server.newest(visitor);
  } catch {
    // Gradio tells of some failures so, and of others by no answer.
  }
  if (mine !== asked || told) return;
  if (answer && over !== undefined && answer.over !== over) trigger('ended', {});
  over = answer?.over ?? over;
  if (!answer) again(RETRY_SECONDS); // the page says itself that the connection is lost
  else if (answer.standing !== standing) look();
  else again(props.value[answer.pace]);
}

// A look is over once what it brought is drawn. Where that took long, as much time is left for everything else.
watch('value', () => {
  over ??= props.value?.over;
  const began = told;
  const rest = () => {
    if (told !== began) return;
    const took = began ? (performance.now() - began) / 1000 : 0;
    told = 0;
    again(Math.min(Math.max(props.value.seconds, took), LONGEST_PAUSE_SECONDS));
  };
  if (document.hidden) rest(); // which draws nothing
  else requestAnimationFrame(() => setTimeout(rest));
});

// Who comes back to the page sees at once what is, and whether the server still knows the page.
document.addEventListener('visibilitychange', () => { if (!document.hidden && props.value?.visitor) look(); });
