"use client";

import { useInPage } from "inpage/react";
import { useState } from "react";

/** What the model's folder below public/models/ is called. */
const MODEL = process.env.NEXT_PUBLIC_MODEL ?? "smollm2-135m-instruct";

export default function Page() {
  const { inpage, error, progress } = useInPage({ base: "/", model: MODEL });
  const [answer, setAnswer] = useState("");
  const [failure, setFailure] = useState(null);

  async function ask(event) {
    event.preventDefault();
    setAnswer("");
    setFailure(null);
    const question = String(new FormData(event.currentTarget).get("question"));
    try {
      for await (const piece of inpage.chat(question, { max_tokens: 60, temperature: 0 })) setAnswer((before) => before + piece.text);
    } catch (caught) {
      setFailure(caught);
    }
  }

  const problem = error ?? failure;
  return (
    <main>
      <h1>inpage with Next</h1>
      <form onSubmit={ask}>
        <input name="question" defaultValue="Why is the sky blue?" aria-label="Question" />
        <button disabled={!inpage}>Ask</button>
      </form>
      <p id="answer">{answer}</p>
      <p role="status">{problem ? `${problem.code}: ${problem.message}` : inpage ? inpage.info.why : progress?.phase}</p>
    </main>
  );
}
