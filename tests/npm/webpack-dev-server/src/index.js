import { InPage } from "inpage";

const inpage = await InPage.start({ model: "synthetic" });
for await (const piece of inpage.chat("hello", { max_tokens: 60, temperature: 0 })) document.body.append(piece.text);
