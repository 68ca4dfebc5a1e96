const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export default { mode: "development", entry: "./src/index.js", devServer: { host: "127.0.0.1", port: "auto", headers, static: "public" } };
