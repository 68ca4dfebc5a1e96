/** @file All of the package's entries in one project, by their types and at run time. */

import { EngineError, InPage } from "inpage";
import { createInPage, type InPageProvider } from "inpage/ai-sdk";
import "inpage/grammar";
import { openai, type ClientOptions } from "inpage/openai";
import { useInPage } from "inpage/react";

Object.assign(globalThis, { entries: { EngineError, InPage, createInPage, openai, useInPage } });

/** Only its types are looked at. */
export function typed(inpage: InPage): [string, string, InPage | null] {
  const provider: InPageProvider = createInPage(inpage);
  const client: ClientOptions = openai(inpage);
  // @ts-expect-error a model is named by a text
  provider(5);
  // @ts-expect-error what answers can fetch
  openai({ chat: inpage.chat });
  // @ts-expect-error no option is called so
  useInPage({ modle: "m" });
  return [provider("m").modelId, client.baseURL, useInPage({ model: "m" }).inpage];
}
