import { EngineError, InPage } from "inpage";
import { createInPage } from "inpage/ai-sdk";
import "inpage/grammar";
import { openai } from "inpage/openai";

Object.assign(globalThis, { EngineError, InPage, createInPage, openai });
