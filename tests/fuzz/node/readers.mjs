/** @file All readers of untrusted input in JavaScript. */

import { READERS as ARTIFACTS } from "./artifacts.mjs";
import { READERS as MESSAGES } from "./messages.mjs";
import { READERS as REQUESTS } from "./requests.mjs";

export const READERS = [...ARTIFACTS, ...REQUESTS, ...MESSAGES];
