/** @file An answer also as a ReadableStream, for whatever takes one: cancelling it ends the request. */

/**
 * @typedef {import("./types.js").Answer} Answer
 * @typedef {import("./types.js").Piece} Piece
 */

/** @param {AsyncGenerator<Piece, void, void>} pieces @returns {Answer} */
export function streaming(pieces) {
  return Object.assign(pieces, {
    toReadableStream: () =>
      new ReadableStream(
        {
          pull: async (controller) => {
            const { done, value } = await pieces.next();
            if (done) controller.close();
            else controller.enqueue(value);
          },
          cancel: async () => void (await pieces.return()),
        },
        { highWaterMark: 0 }, // nothing is asked for before somebody reads
      ),
  });
}
