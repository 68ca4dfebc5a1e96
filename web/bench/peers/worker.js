// What the worker of a peer shares: calls from page.js, and what its WebAssembly memories hold.

/** @type {WebAssembly.Memory[]} */
const memories = [];
WebAssembly.Memory = new Proxy(WebAssembly.Memory, {
  construct(Memory, args) {
    const memory = Reflect.construct(Memory, args);
    memories.push(memory);
    return memory;
  },
});

/** Bytes of all WebAssembly memories made in this worker. */
export const wasmBytes = () => memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);

/** Now, on the clock that the page shares. */
export const now = () => performance.timeOrigin + performance.now();

/** The address of a file beside the page.
 * @param {string} path */
export const absolute = (path) => new URL(path, location.href).href;

/** Answer the page's calls.
 * @param {Record<string, (...args: any[]) => Promise<any>>} methods */
export function answer(methods) {
  self.onmessage = async ({ data: { id, name, args } }) => {
    try {
      self.postMessage({ id, value: await methods[name](...args) });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      self.postMessage({ id, error: { code: "peer_failed", message } });
    }
  };
}
