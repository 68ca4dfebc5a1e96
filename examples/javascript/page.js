// @ts-check
import { InPage } from "../../client/inpage.js";

const [form] = document.forms;
const answer = /** @type {HTMLElement} */ (document.getElementById("answer"));
const state = /** @type {HTMLElement} */ (document.getElementById("state"));

const inpage = await InPage.start({
  base: "../../",
  model: "smollm2-135m-instruct",
  onProgress: ({ phase, loaded = 0, total = 0 }) => (state.textContent = total ? `${phase}: ${Math.round((100 * loaded) / total)} %` : phase),
  onChange: ({ sentence }) => (state.textContent = sentence),
});
state.textContent = inpage.info.why;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  answer.textContent = "";
  try {
    for await (const piece of inpage.chat(String(new FormData(form).get("question")), { max_tokens: 60, temperature: 0 })) {
      answer.append(piece.text);
      if (piece.timing) state.textContent = `${piece.timing.decode_tps.toFixed(1)} tokens a second`;
    }
  } catch (error) {
    state.textContent = String(error);
  }
});
form.requestSubmit();
