// ESLint: what type checking does not see. Formatting is left alone.
import js from "@eslint/js";
import globals from "globals";

const BY = "goes through web/engine/host/site_data.js, which holds where a browser refuses or never answers";
const SITE_DATA = ["BroadcastChannel", "indexedDB", "caches", "cookieStore", "localStorage", "sessionStorage"];

export default [
  { ignores: ["web/vendor/**", "web/bundled*/**", "build/**", "dist/**", ".venv/**", "test-results/**", "playwright-report/**", "examples/*/{dist,inpage,node_modules,.next,out}/**"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      "no-var": "error",
      "prefer-const": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-self-compare": "error",
      "no-unmodified-loop-condition": "error",
      "object-shorthand": "error",
    },
  },
  {
    files: ["web/app/**", "web/bench/**", "web/client/**", "web/npm/**", "examples/**"],
    languageOptions: { globals: globals.browser },
  },
  { files: ["web/engine/**", "web/router/**", "web/sw.js", "web/offline.js"], languageOptions: { globals: globals.worker } },
  {
    files: ["web/engine/**", "web/router/**", "web/client/**", "web/npm/**", "web/app/**", "web/sw.js", "examples/**"],
    ignores: ["web/engine/host/site_data.js"],
    rules: {
      "no-restricted-globals": ["error", ...SITE_DATA.map((name) => ({ name, message: BY }))],
      "no-restricted-properties": [
        "error",
        ...[...SITE_DATA, "getDirectory"].map((property) => ({ property, message: BY })),
        ...["locks", "storage", "storageBuckets"].map((property) => ({ object: "navigator", property, message: BY })),
        { object: "document", property: "cookie", message: BY },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "MemberExpression[object.property.name='navigator'][property.name=/^(locks|storage|storageBuckets)$/]", message: BY },
      ],
    },
  },
  { files: ["examples/chrome-extension/**"], languageOptions: { globals: globals.webextensions } },
  { files: ["examples/*/worker.js", "examples/*/sw.js"], languageOptions: { globals: globals.serviceworker }, rules: { "no-restricted-globals": "off" } },
  // A Playwright test runs in Node and evaluates functions in the page.
  { files: ["tests/**"], languageOptions: { globals: { ...globals.node, ...globals.browser } } },
  { files: ["*.config.js", "web/npm/cli.js", "web/make_snapshot.mjs"], languageOptions: { globals: globals.node } },
];
