// `next build` writes a static site to out/; its host sends the headers that threads need.
export default { output: "export" };
