// The app's own service worker. It takes inpage's in, which keeps the files of inpage and of the model's description, and
// answers v1/…; all other requests stay this worker's.
importScripts("inpage/sw.js");

const OWN = "app 1"; // another number with each change of these files
const FILES = ["./", "page.js", "app.webmanifest", "icon.svg"];

self.addEventListener("install", (event) => event.waitUntil(caches.open(OWN).then((cache) => cache.addAll(FILES))));

self.addEventListener("activate", (event) => event.waitUntil(removeOld()));

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(fromCache(event.request));
});

async function fromCache(request) {
  const cache = await caches.open(OWN);
  return (await cache.match(request, { ignoreSearch: request.mode === "navigate" })) ?? fetch(request);
}

async function removeOld() {
  for (const name of await caches.keys()) if (name.startsWith("app ") && name !== OWN) await caches.delete(name);
}
