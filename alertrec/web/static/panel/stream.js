const SILENCE_MS = 90_000; // several keep-alives missed: a laptop that slept holds a dead connection
const LONGEST_PAUSE_MS = 15_000;

/** Yield the events of a text/event-stream; `onAlive` is called at each sign of life, comments included. */
export async function* serverSentEvents(body, onAlive = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { name: "message", data: [] };
  for (let chunk; !(chunk = await reader.read()).done; ) {
    onAlive();
    const lines = (rest + chunk.value).split(/\r\n|\n|\r(?=[^\n])/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "event") event.name = value;
      if (field === "data") event.data.push(value);
      if (line !== "") continue;
      if (event.data.length) yield { name: event.name, data: event.data.join("\n") };
      event = { name: "message", data: [] };
    }
  }
}

/**
 * Listen until `life`, a signal, is aborted, however often the connection breaks. `onState` is told "live" and
 * "offline", `onNews` that there may be a new list: one was announced, or may have been while nobody listened.
 */
export async function listen(api, life, { onState, onNews }) {
  for (let attempt = 0; !life.aborted; attempt++) {
    const began = Date.now();
    const onOpen = () => (onState("live"), onNews()); // what was written before may have been missed
    const isOver = await connect(api, life, { onOpen, onNews, onAlive: () => (attempt = 0) });
    if (life.aborted) return;
    if (isOver && Date.now() - began > LONGEST_PAUSE_MS) continue; // the server ends each one after some minutes
    onState("offline");
    const pause = Math.min(LONGEST_PAUSE_MS, 1000 * 2 ** attempt) * (1 + Math.random()); // not all customers at once
    await new Promise((resolve) => (setTimeout(resolve, pause), life.addEventListener("abort", resolve)));
  }
}

/** Return true where the server has ended the stream, in order. */
async function connect(api, life, { onOpen, onNews, onAlive }) {
  const connection = new AbortController();
  const cut = () => connection.abort();
  let silence;
  const wait = () => (clearTimeout(silence), (silence = setTimeout(cut, SILENCE_MS)));
  wait();
  life.addEventListener("abort", cut);
  try {
    const { body } = await api.fetch("/stream", { accept: "text/event-stream", signal: connection.signal });
    onOpen();
    const events = serverSentEvents(body, () => (wait(), onAlive()));
    for await (const { name } of events) if (name === "recommendations_ready") onNews();
    return true;
  } catch {
    return false; // it is connected again in a while; what went wrong does not concern the customer
  } finally {
    clearTimeout(silence);
  }
}
