import { EngineError, InPage } from "inpage";
import "inpage/grammar";

Object.assign(globalThis, { EngineError, InPage });
