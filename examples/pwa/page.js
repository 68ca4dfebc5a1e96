import { InPage } from "./inpage/inpage.js";

const [form] = document.forms;
const answer = document.getElementById("answer");
const state = document.querySelector("[role=status]");

try {
  // What inpage's part of the worker does stands in the worker's URL: threads on any host, and files kept for use offline.
  const worker = await navigator.serviceWorker.register("worker.js?isolate=require-corp&files=inpage/", { updateViaCache: "none" });
  await InPage.register({ worker, isolate: true });
  const inpage = await InPage.start({ model: "smollm2-135m-instruct" });
  await inpage.serve();
  state.textContent = inpage.info.why;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.textContent = "";
    const question = String(new FormData(form).get("question"));
    for await (const piece of inpage.chat(question, { max_tokens: 60, temperature: 0 })) answer.append(piece.text);
  });
} catch (error) {
  state.textContent = `${error.code}: ${error.message}`;
}
