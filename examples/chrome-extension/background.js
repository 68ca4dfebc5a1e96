// The extension's service worker. It computes nothing: a browser stops it after half a minute. The model is in an offscreen
// document, which lives on; this makes it, and opens the page.

chrome.action.onClicked.addListener(() => chrome.tabs.create({ url: "page.html" }));

chrome.runtime.onMessage.addListener((message, _sender, respond) => {
  if (message !== "model") return false;
  model().then(() => respond({}), (error) => respond({ error: String(error) }));
  return true; // the response comes later
});

let making = null;

async function model() {
  if (await chrome.offscreen.hasDocument()) return;
  making ??= chrome.offscreen.createDocument({
    url: "offscreen.html",
    reasons: ["WORKERS"],
    justification: "a language model runs in workers of this document",
  });
  await making.finally(() => (making = null));
}
