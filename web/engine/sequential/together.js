/** @file Parts of a load that go on at once. */

/**
 * All of them. The first failure ends the others, and is told once nothing of them is under way any more.
 * @template {readonly Promise<unknown>[] | []} T
 * @param {AbortSignal} signal
 * @param {(signal: AbortSignal) => T} begin
 */
export async function together(signal, begin) {
  const failed = new AbortController();
  const all = begin(AbortSignal.any([signal, failed.signal]));
  for (const one of all) one.catch((error) => failed.abort(error)); // only the first one's reason stays
  await Promise.allSettled(all);
  failed.signal.throwIfAborted();
  return Promise.all(all);
}
