// What the editor does to a draft, without the page. Part of the editor's script.
// A draft is {"prompt", "chosen": [{"text", "label"}], "rejected": [...]}; a label is true, false or null.
const SIDES = [['chosen', 'Chosen'], ['rejected', 'Rejected']];
const UNDO_LIMIT = 200;
const TYPING_PAUSE = 1000; // milliseconds after which typing on counts as another change

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const isBlank = (text) => !text.trim();

function fingerprint(draft) {
  let hash = 0x811c9dc5;
  for (const character of JSON.stringify(draft)) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193) >>> 0;
  return hash.toString(36);
}

// Index of the first step whose text differs; null where one side only repeats the other to its end.
function divergenceOf({ chosen, rejected }) {
  const length = Math.min(chosen.length, rejected.length);
  for (let i = 0; i < length; i += 1) if (chosen[i].text !== rejected[i].text) return i;
  return null;
}

const firstErrorOf = (steps) => steps.findIndex((step) => step.label === false);

// Splits a step in two; returns "" or why it can't be.
function splitStep(steps, index, caret) {
  const { text, label } = steps[index];
  const [before, after] = [text.slice(0, caret).trimEnd(), text.slice(caret).trimStart()];
  if (isBlank(before) || isBlank(after)) return 'Put the caret inside the text, where the second step begins; then split.';
  // Both halves of a right step are right; which half of a wrong one is wrong, nobody has said yet.
  const kept = label === true ? true : null;
  steps.splice(index, 1, { text: before, label: kept }, { text: after, label: kept });
  return label === false ? 'The step was labelled wrong: say of both halves whether they are right.' : '';
}

// Joins a step and the next; returns where in the text they meet.
function mergeSteps(steps, index) {
  const [one, two] = [steps[index], steps[index + 1]];
  const glue = one.text && two.text ? ' ' : '';
  // A step that holds an error is wrong, whatever else is in it.
  const label = one.label === false || two.label === false ? false : one.label === true && two.label === true ? true : null;
  steps.splice(index, 2, { text: one.text + glue + two.text, label });
  return one.text.length;
}

// What can be said without the server, at once.
function blankNotes(draft) {
  const found = isBlank(draft.prompt) ? [{ side: 'prompt', step: null, words: 'write the problem that the steps solve', error: true }] : [];
  for (const [side] of SIDES) {
    draft[side].forEach((step, index) => {
      if (isBlank(step.text)) found.push({ side, step: index, words: 'write this step, or delete it', error: true });
    });
  }
  return found;
}

// Where two drafts differ first, and where the caret belongs in the second one's text.
function changedPlace(before, after) {
  if (before.prompt !== after.prompt) return { side: 'prompt', step: 0, caret: changeEnd(before.prompt, after.prompt) };
  for (const [side] of SIDES) {
    const length = Math.max(before[side].length, after[side].length);
    for (let i = 0; i < length; i += 1) {
      if (same(before[side][i], after[side][i])) continue;
      const step = Math.min(i, after[side].length - 1);
      return { side, step, caret: changeEnd(before[side][i]?.text ?? '', after[side][step].text) };
    }
  }
  return { side: 'prompt', step: 0, caret: after.prompt.length };
}

function changeEnd(before, after) {
  let tail = 0;
  while (tail < Math.min(before.length, after.length) && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  return after.length - tail;
}

// The drafts before each change of one example; typing in one field without a pause is one change.
class History {
  constructor() {
    this.past = [];
    this.future = [];
    this.field = '';
    this.at = 0;
  }

  // Before a change: of the text of a field, or of anything else ("").
  record(draft, field = '') {
    const now = Date.now();
    const goesOn = field && field === this.field && now - this.at < TYPING_PAUSE;
    this.field = field;
    this.at = now;
    if (goesOn) return;
    this.past.push(structuredClone(draft));
    if (this.past.length > UNDO_LIMIT) this.past.shift();
    this.future = [];
  }

  // Returns the draft to show, or null.
  step(draft, from, to) {
    if (!from.length) return null;
    to.push(structuredClone(draft));
    this.field = '';
    return from.pop();
  }

  undo(draft) {
    return this.step(draft, this.past, this.future);
  }

  redo(draft) {
    return this.step(draft, this.future, this.past);
  }
}

// Histories outlast a change of example or tab, not a refresh.
function historyOf(key) {
  const all = (window.stepwiseHistories ??= new Map());
  if (!all.has(key)) all.set(key, new History());
  const found = all.get(key);
  all.delete(key);
  all.set(key, found); // the latest last
  if (all.size > 50) all.delete(all.keys().next().value);
  return found;
}
