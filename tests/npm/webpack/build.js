// `node build.js`: webpack's production build as it comes; without INPAGE_SLOW it minifies nothing, which takes most of it.
import webpack from "webpack";

const optimization = { minimize: Boolean(process.env.INPAGE_SLOW) };
webpack({ mode: "production", entry: { main: "./src/index.js", sw: "./src/sw.js" }, optimization, performance: false }, (error, stats) => {
  console.log(error ?? stats.toString());
  process.exitCode = error || stats.hasErrors() ? 1 : 0;
});
