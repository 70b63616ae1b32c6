// Unsaved text of examples: kept in this browser until it is saved or discarded, so that a refresh loses none of it.
// One entry of localStorage per example. Part of the editor's script.
const DRAFT_PREFIX = 'stepwise-dpo/draft/';
const DRAFT_DAYS = 30;
const DRAFT_CHARACTERS = 1_000_000;

function storedDrafts() {
  const found = new Map();
  try {
    for (const name of Object.keys(localStorage).filter((name) => name.startsWith(DRAFT_PREFIX))) {
      let entry = null;
      try {
        entry = JSON.parse(localStorage.getItem(name));
      } catch {
        entry = null; // not ours, or cut off: it can't be shown, and is left alone
      }
      if (!isDraft(entry?.draft)) continue;
      if (Date.now() - entry.at > DRAFT_DAYS * 864e5) localStorage.removeItem(name);
      else found.set(name.slice(DRAFT_PREFIX.length), { ...entry, stored: true });
    }
  } catch {
    return found; // a browser that forbids storage says so when something is to be kept
  }
  return found;
}

function isDraft(draft) {
  const steps = (side) => Array.isArray(side) && side.every((step) => typeof step?.text === 'string' && [true, false, null, undefined].includes(step.label));
  return typeof draft?.prompt === 'string' && steps(draft.chosen) && steps(draft.rejected);
}

const drafts = (window.stepwiseDrafts ??= storedDrafts());
const told = () => window.dispatchEvent(new Event('stepwise-drafts'));

// Returns "" or why the text lasts only until the page is closed.
function keepDraft(key, draft, base) {
  const isNew = !drafts.has(key);
  const entry = { draft: structuredClone(draft), base, at: Date.now(), stored: false };
  drafts.set(key, entry);
  if (isNew) told();
  const text = JSON.stringify({ draft, base, at: entry.at });
  let problem = 'this example is too long for it';
  try {
    if (text.length <= DRAFT_CHARACTERS) {
      localStorage.setItem(DRAFT_PREFIX + key, text);
      entry.stored = true;
      return '';
    }
    localStorage.removeItem(DRAFT_PREFIX + key);
  } catch (error) {
    problem = error.name === 'QuotaExceededError' ? 'its storage is full' : 'it forbids storage';
  }
  return `Your browser can't keep unsaved text (${problem}): save before you leave the page.`;
}

function dropDraft(key) {
  if (drafts.delete(key)) told();
  try {
    localStorage.removeItem(DRAFT_PREFIX + key);
  } catch {
    return; // a browser that forbids storage has kept none
  }
}

// Only text that a refresh would lose asks before the page is left.
window.onbeforeunload = () => ([...drafts.values()].some((entry) => !entry.stored) ? true : undefined);
