/**
 * @file `inpage/ai-sdk`: a provider for Vercel's `ai`.
 *
 *     const model = createInPage(inpage)("smollm2-135m-instruct");
 *     const { textStream } = streamText({ model, prompt: "What is gravity?" });
 *
 * It speaks OpenAI's chat completions over `InPage.fetch`, so that streams go on where a router died. What `ai` has no
 * option for is given as `providerOptions: { inpage: { min_p: 0.05 } }`.
 */

import { APICallError, NoSuchModelError } from "@ai-sdk/provider";

import { array, integer, object } from "../engine/format/check.js";
import { EngineError } from "../engine/format/errors.js";
import { parsed } from "../engine/format/json.js";
import { ENTRIES } from "../engine/format/limits.js";
import { said } from "../engine/format/quoting.js";
import { bodyOf, finishOf, usageOf } from "./ai-sdk-wire.js";

/**
 * @typedef {import("@ai-sdk/provider").LanguageModelV4} LanguageModelV4
 * @typedef {import("@ai-sdk/provider").LanguageModelV4CallOptions} CallOptions
 * @typedef {import("@ai-sdk/provider").LanguageModelV4Content} Content
 * @typedef {import("@ai-sdk/provider").LanguageModelV4StreamPart} StreamPart
 * @typedef {import("@ai-sdk/provider").ProviderV4} ProviderV4
 * @typedef {{fetch: (input: RequestInfo | URL, init?: RequestInit) => Promise<Response>}} Fetches
 * @typedef {ProviderV4 & ((modelId: string) => LanguageModelV4)} InPageProvider
 * @typedef {{id: string, name: string, input: string}} Call
 */

const ENDPOINT = "http://inpage/v1/chat/completions";

/**
 * @param {Fetches} inpage an `InPage`
 * @returns {InPageProvider} a function that gives the model of a name
 */
export function createInPage(inpage) {
  const languageModel = (/** @type {string} */ modelId) => new Model(inpage, modelId);
  /** @param {"embeddingModel" | "imageModel"} modelType @returns {(modelId: string) => never} */
  const none = (modelType) => (modelId) => {
    throw new NoSuchModelError({ modelId, modelType });
  };
  return Object.assign(languageModel, {
    specificationVersion: /** @type {const} */ ("v4"),
    languageModel,
    embeddingModel: none("embeddingModel"),
    imageModel: none("imageModel"),
  });
}

/** @implements {LanguageModelV4} */
class Model {
  specificationVersion = /** @type {const} */ ("v4");
  provider = "inpage";
  /** @type {Record<string, RegExp[]>} */
  supportedUrls = {};
  #inpage;

  /** @param {Fetches} inpage @param {string} modelId */
  constructor(inpage, modelId) {
    this.#inpage = inpage;
    this.modelId = modelId;
  }

  /** @param {CallOptions} options @returns {Promise<import("@ai-sdk/provider").LanguageModelV4GenerateResult>} */
  async doGenerate(options) {
    const { body, warnings } = bodyOf(this.modelId, options);
    const response = await this.#ask(body, options);
    const answer = await response.json();
    const [{ message, finish_reason }] = answer.choices;
    /** @type {Content[]} */
    const content = message.content ? [{ type: "text", text: message.content }] : [];
    for (const { id, function: called } of message.tool_calls ?? []) {
      content.push({ type: "tool-call", toolCallId: id, toolName: called.name, input: called.arguments });
    }
    return {
      content,
      finishReason: finishOf(finish_reason),
      usage: usageOf(answer.usage),
      request: { body },
      response: { ...metadata(answer), headers: Object.fromEntries(response.headers), body: answer },
      warnings,
    };
  }

  /** @param {CallOptions} options @returns {Promise<import("@ai-sdk/provider").LanguageModelV4StreamResult>} */
  async doStream(options) {
    const { body: asked, warnings } = bodyOf(this.modelId, options);
    const body = { ...asked, stream: true, stream_options: { include_usage: true } };
    const response = await this.#ask(body, options);
    const parts = new Parts(body, options.includeRawChunks ?? false);
    const stream = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body)
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(events())
      .pipeThrough(
        new TransformStream({
          /** @param {TransformStreamDefaultController<StreamPart>} out */
          start: (out) => out.enqueue({ type: "stream-start", warnings }),
          transform: (chunk, out) => parts.take(chunk, out),
          flush: (out) => parts.end(out),
        }),
      );
    return { stream, request: { body }, response: { headers: Object.fromEntries(response.headers) } };
  }

  /** @param {object} body @param {CallOptions} options @returns {Promise<Response>} */
  async #ask(body, { abortSignal: signal, headers }) {
    const given = Object.entries(headers ?? {}).filter((pair) => pair[1] !== undefined);
    const sent = { ...Object.fromEntries(/** @type {[string, string][]} */ (given)), "content-type": "application/json" };
    const response = await this.#inpage.fetch(ENDPOINT, { method: "POST", headers: sent, body: JSON.stringify(body), ...(signal && { signal }) });
    if (response.ok) return response;
    const text = await response.text();
    throw failure(body, JSON.parse(text), { statusCode: response.status, responseHeaders: Object.fromEntries(response.headers), responseBody: text });
  }
}

/** What a stream's chunks become. */
class Parts {
  /** @type {Call[]} */
  #calls = [];
  #speaking = false;
  /** @type {unknown} */
  #usage = null;
  /** @type {string | null} */
  #finish = null;
  #begun = false;
  #body;
  #raw;

  /** @param {object} body the request's @param {boolean} raw whether chunks are wanted as they are, too */
  constructor(body, raw) {
    this.#body = body;
    this.#raw = raw;
  }

  /** @param {any} chunk @param {TransformStreamDefaultController<StreamPart>} out */
  take(chunk, out) {
    if (this.#raw) out.enqueue({ type: "raw", rawValue: chunk });
    if (chunk.error) {
      this.#finish = "error";
      out.enqueue({ type: "error", error: failure(this.#body, chunk, {}) });
      return;
    }
    if (!this.#begun) out.enqueue({ type: "response-metadata", ...metadata(chunk) });
    this.#begun = true;
    this.#usage = chunk.usage ?? this.#usage;
    const [choice] = chunk.choices;
    if (!choice) return;
    const { content, tool_calls: calls = [] } = choice.delta;
    if (content) {
      if (!this.#speaking) out.enqueue({ type: "text-start", id: "0" });
      this.#speaking = true;
      out.enqueue({ type: "text-delta", id: "0", delta: content });
    }
    for (const call of calls) this.#call(call, out);
    this.#finish = choice.finish_reason ?? this.#finish;
  }

  /** @param {any} piece @param {TransformStreamDefaultController<StreamPart>} out */
  #call({ index, id, function: { name, arguments: delta } }, out) {
    if (name && index <= this.#calls.length) {
      this.#calls[index] = { id, name, input: "" };
      out.enqueue({ type: "tool-input-start", id, toolName: name });
    }
    const call = this.#calls[index];
    if (!call) throw new EngineError("network", "the stream is broken: a call has no name", "stream");
    call.input += delta ?? "";
    if (delta) out.enqueue({ type: "tool-input-delta", id: call.id, delta });
  }

  /** @param {TransformStreamDefaultController<StreamPart>} out */
  end(out) {
    if (this.#speaking) out.enqueue({ type: "text-end", id: "0" });
    for (const { id, name, input } of this.#finish === "error" ? [] : this.#calls) {
      out.enqueue({ type: "tool-input-end", id });
      out.enqueue({ type: "tool-call", toolCallId: id, toolName: name, input });
    }
    out.enqueue({ type: "finish", finishReason: finishOf(this.#finish), usage: usageOf(this.#usage) });
  }
}

/** Server-sent events: text in, what each says out. @returns {TransformStream<string, any>} */
function events() {
  let rest = "";
  return new TransformStream({
    transform(text, out) {
      const whole = (rest + text).split("\n\n");
      rest = whole.pop() ?? "";
      for (const event of whole) if (event !== "data: [DONE]") out.enqueue(chunkOf(event));
    },
  });
}

/**
 * @param {string} event
 * @returns {any} a chunk of OpenAI's, or {error}
 * @throws {EngineError} network
 */
function chunkOf(event) {
  try {
    const chunk = object(parsed(event.slice("data: ".length), "stream"), "stream");
    if (chunk.error) return { error: { ...object(chunk.error, "error"), message: String(object(chunk.error, "error").message) } };
    const [choice] = array(chunk.choices, "choices", ENTRIES);
    if (choice === undefined) return chunk;
    const { tool_calls: calls } = object(object(choice, "choices[0]").delta, "delta");
    for (const call of calls === undefined ? [] : array(calls, "tool_calls", ENTRIES)) {
      const { index, function: called } = object(call, "tool_calls");
      integer(index, "index", 0, ENTRIES);
      object(called, "function");
    }
    return chunk;
  } catch (error) {
    throw new EngineError("network", `the stream is broken: ${said(error)}`, "stream", error);
  }
}

/** @param {{id: string, created: number, model: string}} answer */
function metadata({ id, created, model }) {
  return { id, timestamp: new Date(created * 1000), modelId: model };
}

/** @param {object} body @param {any} data @param {{statusCode?: number, responseHeaders?: Record<string, string>, responseBody?: string}} response */
function failure(body, data, response) {
  return new APICallError({ url: ENDPOINT, requestBodyValues: body, data, message: data.error.message, ...response });
}
