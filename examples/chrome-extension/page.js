const [form] = document.forms;
const answer = document.getElementById("answer");
const state = document.querySelector("[role=status]");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  answer.textContent = "";
  state.textContent = "Loading …";
  const { error } = await chrome.runtime.sendMessage("model");
  if (error) {
    state.textContent = error;
    return;
  }
  const port = chrome.runtime.connect();
  port.onMessage.addListener(({ text, state: said, end }) => {
    if (text) answer.append(text);
    if (said) state.textContent = said;
    if (end) port.disconnect();
  });
  port.postMessage(String(new FormData(form).get("question")));
});
