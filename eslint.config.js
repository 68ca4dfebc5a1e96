// ESLint: what type checking does not see. Formatting is left alone.
import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["web/vendor/**", "build/**", "dist/**", ".venv/**", "test-results/**", "playwright-report/**"] },
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
    files: ["web/app/**", "web/bench/**", "web/client/**", "examples/**"],
    languageOptions: { globals: globals.browser },
  },
  { files: ["web/engine/**", "web/router/**"], languageOptions: { globals: globals.worker } },
  // A Playwright test runs in Node and evaluates functions in the page.
  { files: ["tests/**"], languageOptions: { globals: { ...globals.node, ...globals.browser } } },
  { files: ["*.config.js"], languageOptions: { globals: globals.node } },
];
