/** @file Types of the chat page. No code. */

/**
 * @typedef {"waiting" | "running" | "done" | "stopped" | "cut" | "circles" | "failed"} Status waiting: for a model; cut: at
 *   its limit; circles: the repetition guard ended it
 * @typedef {object} Message a node of a conversation's tree: siblings are variants, of a question by editing, of an answer
 *   by asking again
 * @property {string} id
 * @property {string | null} parent
 * @property {"user" | "assistant"} role
 * @property {string} text
 * @property {number} created milliseconds since 1970
 * @property {Status} status
 * @property {string} model name of what answered; empty for questions
 * @property {number[]} tokens of an answer, with which it can go on
 * @property {{text: number, tokens: number}} from how much of it there was when it was last asked for or continued
 * @property {number | null} seed
 * @property {string} note of what went wrong, for people; empty where nothing did
 * @typedef {object} Head what the list shows of a conversation
 * @property {string} id
 * @property {string} title
 * @property {number} created
 * @property {number} updated
 * @property {string | null} leaf the last message of the branch that is shown
 * @typedef {object} Settings null: the model's default
 * @property {string} system
 * @property {number | null} temperature
 * @property {number | null} top_p
 * @property {number | null} max_tokens
 * @property {number | null} seed
 * @property {number | null} max_repeats
 * @property {string} schema JSON schema as text
 * @property {string | null} model
 * @property {string | null} level
 * @property {string | null} backend
 * @property {number | null} threads
 * @property {string | null} lang
 * @typedef {object} SiteModel an entry of site.json
 * @property {string} id
 * @property {string} name
 * @property {string} path
 * @property {number} bytes
 * @property {string} license
 * @property {number} context
 * @property {number} parameters
 * @property {number | null} cost by how much its perplexity is above the source's, where that was measured
 * @property {{name: string, bytes: number, cost: number | null}[]} levels
 * @typedef {{models: SiteModel[], answers: string | null}} Site
 */

export {};
