import { defineConfig } from "vite";

// With these the model computes on all cores. The host of the built site has to send them too.
const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export default defineConfig({ base: "./", server: { headers }, preview: { headers } });
