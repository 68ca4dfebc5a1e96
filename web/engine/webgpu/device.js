/**
 * @file The GPU device of one engine: found, opened with no more than is needed, and watched. Everything that is made on
 * it is made here, so that it is counted and so that every failure becomes a typed error.
 */

import { matrixUnits } from "../core/matrix_units.js";
import { EngineError } from "../format/errors.js";
import { COUNTER_WORDS, COUNTERS } from "./counters.js";

/**
 * @typedef {import("../core/protocol.js").AdapterFacts} AdapterFacts
 * @typedef {object} Wanted
 * @property {readonly string[]} features WebGPU's features, and WGSL's, that the variant requires
 * @property {number} binding bytes of the largest binding that would be useful
 * @property {GPUPowerPreference} power which adapter, where there are two
 * @property {readonly string[]} [optional] features that are of use where the adapter has them
 */

/** What adapters that compute on the CPU call themselves: SwiftShader, Mesa's llvmpipe and lavapipe, Windows' WARP. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|microsoft basic render|software/i;

/**
 * The adapter that this browser would use. Works wherever navigator.gpu is there, also on the main thread.
 * @param {GPUPowerPreference} powerPreference
 * @returns {Promise<{adapter: GPUAdapter, facts: AdapterFacts} | null>} null: no WebGPU, or no adapter
 */
export async function findAdapter(powerPreference) {
  const gpu = /** @type {Partial<NavigatorGPU>} */ (globalThis.navigator).gpu;
  const adapter = await gpu?.requestAdapter({ powerPreference }).catch(() => null);
  if (!adapter) return null;
  const { vendor, architecture, description } = adapter.info;
  const fallback = adapter.info.isFallbackAdapter === true;
  const software = fallback || SOFTWARE.test(`${vendor} ${architecture} ${description}`);
  return { adapter, facts: { vendor, architecture, description, software } };
}

/**
 * The same, where it has what is required of it.
 * @param {GPUPowerPreference} power
 * @param {readonly string[]} requires features, also of WGSL and of matrix units, and limits of at least so much ("maxStorageBuffersPerShaderStage:10")
 * @throws {EngineError} unsupported
 */
export async function requireAdapter(power, requires) {
  const found = await findAdapter(power);
  if (!found) throw new EngineError("unsupported", "this browser has no WebGPU adapter", "variant");
  const { limits } = found.adapter;
  const features = new Set([...found.adapter.features, ...matrixUnits(found.adapter.info)]);
  const language = /** @type {Partial<GPU>} */ (navigator.gpu).wgslLanguageFeatures;
  for (const word of requires) {
    const [name, least] = word.split(":");
    if (!least && !features.has(name) && !language?.has(name)) throw new EngineError("unsupported", `this device's WebGPU has no ${name}`, "variant");
    const has = Number(/** @type {Record<string, number>} */ (/** @type {unknown} */ (limits))[name] ?? 0);
    if (least && has < Number(least)) throw new EngineError("unsupported", `this device's WebGPU has a ${name} of ${has}, not of ${least}`, "variant");
  }
  return found;
}

/**
 * A device with the default limits; larger bindings only where they are of use and offered.
 * @param {Wanted} wanted
 * @returns {Promise<Gpu>}
 * @throws {EngineError} unsupported
 */
export async function openDevice({ features, binding, power, optional = [] }) {
  const { adapter, facts } = await requireAdapter(power, features);
  /** @type {Record<string, number>} */
  const requiredLimits = {};
  for (const limit of /** @type {const} */ (["maxStorageBufferBindingSize", "maxBufferSize"])) {
    // The default is what a request without limits gets: asking for less is the same as not asking.
    requiredLimits[limit] = Math.min(adapter.limits[limit], binding);
  }
  // Those of WGSL and of matrix units are not asked for: what is required is there.
  const requiredFeatures = /** @type {GPUFeatureName[]} */ ([...features, ...optional].filter((name) => adapter.features.has(name)));
  return openedGpu(adapter.requestDevice({ requiredFeatures, requiredLimits }), facts);
}

/**
 * @param {Promise<GPUDevice>} requested
 * @param {AdapterFacts} facts
 * @throws {EngineError} unsupported where the adapter refuses
 */
export async function openedGpu(requested, facts) {
  try {
    return new Gpu(await requested, facts);
  } catch (error) {
    throw new EngineError("unsupported", `the WebGPU device cannot be opened: ${String(error)}`, "variant", error);
  }
}

/** GPUBufferUsage, GPUMapMode and GPUShaderStage, as the specification fixes them. */
export const USAGE = Object.freeze({ MAP_READ: 1, MAP_WRITE: 2, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128, QUERY_RESOLVE: 512 });
export const MAP = Object.freeze({ READ: 1, WRITE: 2 });
export const STAGE_COMPUTE = 4;
/** How long to wait, after an error that nothing explains, for the news that the device is lost. */
const LOSS_MS = 1000;

export class Gpu {
  counters = new Float64Array(COUNTER_WORDS);
  /** @type {(error: EngineError) => void} called once, when the device is gone */
  onGone = () => undefined;
  /** @type {import("./clock.js").PassClock | null} while passes are timed */
  clock = null;
  /** @type {EngineError | null} why nothing can be done any more */
  #gone = null;

  /**
   * @param {GPUDevice} device
   * @param {AdapterFacts} facts
   */
  constructor(device, facts) {
    this.device = device;
    this.facts = facts;
    void device.lost.then(({ reason, message }) => {
      this.#end(new EngineError("device_lost", `the GPU device was lost (${reason}): ${message || "no reason given"}`));
    });
    device.onuncapturederror = ({ error }) => {
      const full = error instanceof GPUOutOfMemoryError;
      this.#end(new EngineError(full ? "out_of_memory" : "device_lost", `the GPU refused: ${error.message}`));
    };
  }

  /** @param {EngineError} error */
  #end(error) {
    if (this.#gone) return;
    this.#gone = error;
    this.onGone(error);
  }

  /** Throws if the device is gone. */
  check() {
    if (this.#gone) throw this.#gone;
  }

  /**
   * What a promise of this device resolves to; where it rejects because the device is gone, that is the error.
   * @template T
   * @param {Promise<T>} promise
   * @returns {Promise<T>}
   */
  async wait(promise) {
    try {
      const value = await promise;
      this.check();
      return value;
    } catch (error) {
      this.check();
      // What is done between a loss and its telling fails in many ways: mappings are aborted, mapped ranges are gone.
      if (!(error instanceof EngineError)) await Promise.race([this.device.lost, pause(LOSS_MS)]);
      this.check();
      if (error instanceof DOMException && error.name === "AbortError") {
        throw new EngineError("device_lost", `the GPU device was lost: ${error.message}`, null, error);
      }
      throw error;
    }
  }

  /**
   * @param {string} label
   * @param {number} bytes rounded up to a multiple of 256
   * @param {GPUBufferUsageFlags} usage
   * @param {boolean} [mapped]
   */
  buffer(label, bytes, usage, mapped = false) {
    this.check();
    const size = Math.max(256, Math.ceil(bytes / 256) * 256);
    this.counters[COUNTERS.buffers]++;
    this.counters[COUNTERS.buffer_bytes] += size;
    return this.device.createBuffer({ label, size, usage, mappedAtCreation: mapped });
  }

  /** @param {GPUBuffer} buffer */
  free(buffer) {
    this.counters[COUNTERS.buffer_bytes] -= buffer.size;
    buffer.destroy();
  }

  /**
   * @param {string} label
   * @param {GPUBindGroupLayout} layout
   * @param {GPUBufferBinding[]} bindings
   */
  bindGroup(label, layout, bindings) {
    this.counters[COUNTERS.bind_groups]++;
    const entries = bindings.map((resource, binding) => ({ binding, resource }));
    return this.device.createBindGroup({ label, layout, entries });
  }

  /**
   * Do something that allocates or validates, and learn at once whether it worked.
   * @template T
   * @param {string} what it is, for the message
   * @param {() => T} make
   * @returns {Promise<T>}
   * @throws {EngineError} out_of_memory; device_lost; artifact_invalid for what validation refuses
   */
  async attempt(what, make) {
    this.check();
    const { device } = this;
    device.pushErrorScope("validation");
    device.pushErrorScope("internal");
    device.pushErrorScope("out-of-memory");
    /** @type {T | undefined} */
    let made;
    /** @type {unknown} */
    let thrown = null;
    try {
      made = make();
    } catch (error) {
      thrown = error; // a mapped buffer that cannot be had is a RangeError
    }
    const [full, internal, invalid] = await this.wait(
      Promise.all([device.popErrorScope(), device.popErrorScope(), device.popErrorScope()]),
    );
    if (full || thrown instanceof RangeError) {
      throw new EngineError("out_of_memory", `${what}: the GPU has no memory for it (${full?.message ?? String(thrown)})`);
    }
    if (thrown) throw thrown;
    if (invalid) throw new EngineError("artifact_invalid", `${what}: ${invalid.message}`, "kernels");
    if (internal) throw new EngineError("unsupported", `${what}: ${internal.message}`, "kernels");
    return /** @type {T} */ (made);
  }

  /** @param {GPUCommandEncoder} encoder */
  pass(encoder) {
    this.counters[COUNTERS.passes]++;
    return encoder.beginComputePass(this.clock ? { timestampWrites: this.clock.next() } : undefined);
  }

  /** @param {GPUCommandEncoder} encoder */
  submit(encoder) {
    this.check();
    this.counters[COUNTERS.submits]++;
    this.device.queue.submit([encoder.finish()]);
  }

  /** When the GPU has done all that was submitted. */
  done() {
    return this.wait(this.device.queue.onSubmittedWorkDone());
  }

  destroy() {
    this.device.destroy();
  }
}

/** @param {number} ms @returns {Promise<void>} */
function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
