const KEY = "alertrec:shown";
const shown = new Set();

/** Whether an id is seen for the first time in this tab, reloads included. */
export function isFirstSight(id) {
  let isFirst = !shown.has(id);
  shown.add(id);
  try {
    const stored = new Set(JSON.parse(sessionStorage.getItem(KEY)));
    isFirst &&= !stored.has(id);
    sessionStorage.setItem(KEY, JSON.stringify([...stored.add(id)]));
  } catch {
    // Storage is refused: what this page remembers must do.
  }
  return isFirst;
}
