import { InPage } from "./inpage/inpage.js";

const [form] = document.forms;
const answer = document.getElementById("answer");
const state = document.querySelector("[role=status]");
const model = new URLSearchParams(location.search).get("model") ?? "smollm2-135m-instruct";

try {
  // On any static host: threads (after one reload where it sends no headers), and no need of a network after this visit.
  await InPage.register({ isolate: true, offline: true });
  const inpage = await InPage.start({ model });
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
