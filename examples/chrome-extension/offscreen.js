// The model, once for all pages of the extension. A page asks over a port and gets the answer in pieces.
import { InPage } from "./inpage/inpage.js";

const starting = InPage.start({ model: "smollm2-135m-instruct" });
starting.catch(() => {}); // said to who asks

chrome.runtime.onConnect.addListener((port) => {
  const stop = new AbortController();
  port.onDisconnect.addListener(() => stop.abort());
  port.onMessage.addListener(async (question) => {
    try {
      const inpage = await starting;
      port.postMessage({ state: inpage.info.why });
      for await (const { text } of inpage.chat(question, { max_tokens: 60, temperature: 0, signal: stop.signal })) port.postMessage({ text });
      port.postMessage({ end: true });
    } catch (error) {
      if (!stop.signal.aborted) port.postMessage({ state: `${error.code}: ${error.message}`, end: true });
    }
  });
});
