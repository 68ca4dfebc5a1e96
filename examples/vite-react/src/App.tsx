import type { EngineError, Piece } from "inpage";
import { useInPage } from "inpage/react";
import { useState, type FormEvent } from "react";

/** What the model's folder below public/models/ is called. */
const MODEL: string = import.meta.env.VITE_MODEL ?? "smollm2-135m-instruct";

export function App() {
  const { inpage, error, progress } = useInPage({ base: import.meta.env.BASE_URL, model: MODEL });
  const [answer, setAnswer] = useState("");
  const [failure, setFailure] = useState<EngineError | null>(null);

  async function ask(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (!inpage) return;
    setAnswer("");
    setFailure(null);
    const question = String(new FormData(event.currentTarget).get("question"));
    try {
      for await (const piece of inpage.chat(question, { max_tokens: 60, temperature: 0 })) {
        setAnswer((before: string) => before + (piece satisfies Piece).text);
      }
    } catch (caught) {
      setFailure(caught as EngineError);
    }
  }

  const problem = error ?? failure;
  return (
    <main>
      <h1>inpage with Vite and React</h1>
      <form onSubmit={ask}>
        <input name="question" defaultValue="Why is the sky blue?" aria-label="Question" />
        <button disabled={!inpage}>Ask</button>
      </form>
      <p id="answer">{answer}</p>
      <p role="status">{problem ? `${problem.code}: ${problem.message}` : inpage ? inpage.info.why : progress?.phase}</p>
    </main>
  );
}
