/**
 * @file Clients that a page has from npm, each doing the same: chat, stream, tools, schema, errors, abort, usage. Bundled
 * by clients.spec.js; the page has `clients` then.
 */

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, NoObjectGeneratedError, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

import { createInPage } from "../../../web/npm/ai-sdk.js";
import { openai } from "../../../web/npm/openai.js";

/** @typedef {import("../../../web/client/inpage.js").InPage} InPage */

const MODEL = "with-tools";
export const QUESTION = "What is gravity?";
const WEATHER = z.object({ place: z.enum(["Ulm", "Bonn"]), days: z.int().min(1).max(9) });
const PLAIN = { temperature: 0, maxOutputTokens: 12, maxRetries: 0 };
const ONE_CALL = { ...PLAIN, maxOutputTokens: 60, providerOptions: { inpage: { parallel_tool_calls: false } } };

/** @param {() => PromiseLike<unknown>} ask @returns {Promise<any>} */
async function failure(ask) {
  try {
    await ask();
    return "no error";
  } catch (error) {
    return error;
  }
}

/** How many requests and KV pages are in use, once nothing more changes. @param {InPage} inpage */
async function left(inpage) {
  while ((await inpage.refresh()).requests.active + inpage.info.requests.waiting > 0);
  return inpage.info.kv_pages.used;
}

/** Vercel's `ai`, by our provider or by one that is not ours. @param {InPage} inpage @param {boolean} ours */
async function ai(inpage, ours) {
  const compatible = createOpenAICompatible({ name: "inpage", baseURL: "http://inpage/v1", fetch: inpage.fetch, supportsStructuredOutputs: true, includeUsage: true });
  const provider = ours ? createInPage(inpage) : compatible;
  const model = provider(MODEL);
  const whole = await generateText({ model, prompt: QUESTION, ...PLAIN });

  const streaming = streamText({ model, prompt: QUESTION, ...PLAIN });
  let [text, pieces] = ["", 0];
  for await (const piece of streaming.textStream) {
    text += piece;
    pieces++;
  }
  const streamed = { text, pieces, usage: await streaming.usage, finish: await streaming.finishReason };

  const { output } = await generateText({ model, prompt: "The weather in Ulm as JSON.", output: Output.object({ schema: WEATHER }), maxRetries: 0, temperature: 0 });
  /** @type {unknown[]} */
  const asked = [];
  const weather = tool({ description: "The weather.", inputSchema: WEATHER, execute: async (input) => (asked.push(input), { sky: "grey" }) });
  const called = await generateText({
    model,
    prompt: "How will the weather be in Ulm?",
    tools: { weather },
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
    stopWhen: stepCountIs(2),
    ...ONE_CALL,
  });
  const calling = streamText({ model, prompt: "How will the weather be in Ulm?", tools: { weather }, toolChoice: { type: "tool", toolName: "weather" }, ...ONE_CALL });
  await calling.consumeStream();
  const [call] = await calling.toolCalls;

  const errors = [];
  for (const ask of [() => generateText({ model: provider("gpt-5"), prompt: "x", maxRetries: 0 }), () => generateText({ model, prompt: "x", temperature: 9, maxRetries: 0 })]) {
    const error = await failure(ask);
    errors.push(APICallError.isInstance(error) ? [error.statusCode, error.isRetryable, error.message] : String(error));
  }
  const cut = await failure(() => generateText({ model, prompt: "As JSON.", output: Output.object({ schema: WEATHER }), ...PLAIN, maxOutputTokens: 2 }).then(({ output }) => output));
  const stop = new AbortController();
  const aborted = streamText({ model, prompt: "Write a long story.", abortSignal: stop.signal, maxRetries: 0, onError: () => {} });
  let end = "";
  for await (const part of aborted.fullStream) {
    if (part.type === "text-delta") stop.abort();
    end = part.type;
  }
  return {
    whole: { text: whole.text, usage: whole.usage, finish: whole.finishReason },
    streamed,
    output,
    steps: called.steps.map(({ finishReason, toolCalls }) => [finishReason, toolCalls.length]),
    answered: called.text,
    asked,
    call: { name: call.toolName, input: call.input },
    errors,
    cut: NoObjectGeneratedError.isInstance(cut) || String(cut),
    end,
    left: await left(inpage),
  };
}

/** What only our provider does. @param {InPage} inpage */
async function own(inpage) {
  const provider = createInPage(inpage);
  const options = { prompt: QUESTION, ...PLAIN, reasoning: /** @type {const} */ ("high"), providerOptions: { inpage: { logit_bias: { 0: -100 }, nonsense: 1 } } };
  const refused = await failure(() => generateText({ model: provider(MODEL), ...options }));
  const warned = await generateText({ model: provider(MODEL), ...options, providerOptions: { inpage: { min_p: 0.1 } } });
  const image = { type: /** @type {const} */ ("file"), data: new Uint8Array([1, 2, 3]), mediaType: "image/png" };
  const unread = await failure(() => generateText({ model: provider(MODEL), messages: [{ role: "user", content: [image] }] }));
  return {
    refused: [refused.statusCode, refused.data?.error.param],
    warnings: warned.warnings,
    unread: unread.name,
    none: (await failure(async () => provider.embeddingModel("x"))).name,
  };
}

/** npm's `openai`: what needs a model that takes tools. @param {InPage} inpage */
async function npm(inpage) {
  const client = new OpenAI(openai(inpage));
  /** @type {import("openai").OpenAI.ChatCompletionTool[]} */
  const tools = [{ type: "function", function: { name: "weather", parameters: z.toJSONSchema(WEATHER) } }];
  const body = { model: MODEL, messages: [{ role: /** @type {const} */ ("user"), content: "How will the weather be in Ulm?" }], tools, tool_choice: /** @type {const} */ ("required"), parallel_tool_calls: false, temperature: 0 };
  const { choices } = await client.chat.completions.create(body);
  const stream = client.chat.completions.stream(body);
  const again = await stream.finalChatCompletion();
  return [choices[0], again.choices[0]].map(({ finish_reason, message }) => [finish_reason, message.tool_calls?.map((call) => call.type === "function" && [call.function.name, JSON.parse(call.function.arguments)])]);
}

Object.assign(globalThis, { clients: { ai, own, npm } });
