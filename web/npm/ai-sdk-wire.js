/** @file What `ai` asks in OpenAI's words, and what comes back in `ai`'s. */

import { UnsupportedFunctionalityError } from "@ai-sdk/provider";

/**
 * @typedef {import("@ai-sdk/provider").LanguageModelV4CallOptions} CallOptions
 * @typedef {import("@ai-sdk/provider").LanguageModelV4Message} Message
 * @typedef {import("@ai-sdk/provider").LanguageModelV4ToolResultOutput} ToolOutput
 * @typedef {import("@ai-sdk/provider").SharedV4Warning} Warning
 */

/**
 * The body of a request. What has no counterpart is a warning, as long as an answer without it makes sense.
 * @param {string} model
 * @param {CallOptions} options
 * @returns {{body: Record<string, unknown>, warnings: Warning[]}}
 */
export function bodyOf(model, options) {
  /** @type {Warning[]} */
  const warnings = [];
  if (options.reasoning && options.reasoning !== "provider-default") {
    warnings.push({ type: "unsupported", feature: "reasoning", details: "the models here do not reason apart from their answer" });
  }
  const tools = [];
  for (const tool of options.tools ?? []) {
    if (tool.type === "function") {
      const { name, description, inputSchema: parameters, strict } = tool;
      tools.push({ type: "function", function: { name, description, parameters, strict } });
    } else {
      warnings.push({ type: "unsupported", feature: `the provider's tool ${tool.id}` });
    }
  }
  const choice = options.toolChoice;
  const body = {
    model,
    messages: options.prompt.flatMap(messagesOf),
    max_tokens: options.maxOutputTokens,
    temperature: options.temperature,
    top_p: options.topP,
    top_k: options.topK,
    presence_penalty: options.presencePenalty,
    frequency_penalty: options.frequencyPenalty,
    stop: options.stopSequences?.length ? options.stopSequences : undefined,
    seed: options.seed,
    response_format: formatOf(options.responseFormat),
    tools: tools.length ? tools : undefined,
    tool_choice: !tools.length || !choice ? undefined : choice.type === "tool" ? { type: "function", function: { name: choice.toolName } } : choice.type,
    ...options.providerOptions?.inpage,
  };
  return { body, warnings };
}

/** @param {string | null} reason OpenAI's @returns {import("@ai-sdk/provider").LanguageModelV4FinishReason} */
export function finishOf(reason) {
  /** @type {Record<string, import("@ai-sdk/provider").LanguageModelV4FinishReason["unified"]>} */
  const known = { stop: "stop", length: "length", tool_calls: "tool-calls", error: "error" };
  return { unified: reason === null ? "interrupted" : (known[reason] ?? "other"), raw: reason ?? undefined };
}

/** @param {any} usage OpenAI's @returns {import("@ai-sdk/provider").LanguageModelV4Usage} */
export function usageOf(usage) {
  const read = usage?.prompt_tokens;
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  const written = usage?.completion_tokens;
  return {
    inputTokens: { total: read, noCache: usage ? read - cached : undefined, cacheRead: cached, cacheWrite: undefined },
    outputTokens: { total: written, text: written, reasoning: undefined },
    raw: usage ?? undefined,
  };
}

/** @param {CallOptions["responseFormat"]} format */
function formatOf(format) {
  if (format?.type !== "json") return undefined;
  if (!format.schema) return { type: "json_object" };
  const { schema, name = "answer", description } = format;
  return { type: "json_schema", json_schema: { name, description, schema, strict: true } };
}

/** @param {Message} message @returns {object[]} */
function messagesOf({ role, content }) {
  if (role === "system") return [{ role, content }];
  if (role === "tool") {
    const results = content.filter((part) => part.type === "tool-result");
    return results.map((part) => ({ role, tool_call_id: part.toolCallId, name: part.toolName, content: outputOf(part.output) }));
  }
  let text = "";
  const calls = [];
  for (const part of content) {
    if (part.type === "text") text += part.text;
    else if (part.type === "tool-call") {
      calls.push({ id: part.toolCallId, type: "function", function: { name: part.toolName, arguments: JSON.stringify(part.input) } });
    } else if (part.type !== "reasoning") throw unread(part.type);
  }
  return [{ role, content: text, ...(calls.length && { tool_calls: calls }) }];
}

/** @param {ToolOutput} output @returns {string} */
function outputOf(output) {
  if (output.type === "text" || output.type === "error-text") return output.value;
  if (output.type === "json" || output.type === "error-json") return JSON.stringify(output.value);
  if (output.type === "execution-denied") return output.reason ?? "The tool was not run.";
  return output.value
    .map((part) => {
      if (part.type === "text") return part.text;
      throw unread(part.type);
    })
    .join("");
}

/** @param {string} kind */
function unread(kind) {
  return new UnsupportedFunctionalityError({ functionality: `${kind} parts`, message: `the models here read text only, not ${kind} parts` });
}
