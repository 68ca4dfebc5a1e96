/** @file The real model's manifest with a chat template that takes tools, which its own does not: the same weights by another name. */

import { execFileSync } from "node:child_process";
import path from "node:path";

import { ROOT } from "./real.js";

const WITH_TOOLS = `
import json, sys
from inpage.format.manifest import revision_of
manifest = json.load(open("build/models/smollm2-135m-instruct/manifest.json"))
manifest["chat_template"] = open("tests/support/hermes.jinja").read()
manifest["revision"] = revision_of(manifest)
json.dump(manifest, sys.stdout)
`;

/** The site's page finds it as the model "with-tools". @param {import("@playwright/test").Page} page */
export async function routeWithTools(page) {
  await page.route("**/models/with-tools/**", (route) => {
    const url = route.request().url();
    if (!url.endsWith("/manifest.json")) return route.continue({ url: url.replace("with-tools", "smollm2-135m-instruct") });
    const body = execFileSync(path.join(ROOT, ".venv/bin/python"), ["-c", WITH_TOOLS], { cwd: ROOT });
    return route.fulfill({ body, contentType: "application/json" });
  });
}
