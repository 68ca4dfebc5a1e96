/** @file What a model may write, in error or in malice, to become more than text on a page: two hundred snippets. */

const RUN = "globalThis.hacked=1";
const TAGS = [
  `<script>${RUN}</script>`, `<img src=x onerror="${RUN}">`, `<svg onload="${RUN}"><circle r=1></svg>`, `<svg><script>${RUN}</script></svg>`, `<iframe src="javascript:${RUN}"></iframe>`,
  `<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>`, `<object data="https://other.example/x"></object>`, `<embed src="https://other.example/x">`, `<form action="https://other.example/"><input autofocus onfocus="${RUN}"></form>`,
  `<a href="javascript:${RUN}">x</a>`, `<base href="https://other.example/">`, `<link rel=stylesheet href="https://other.example/x.css">`, `<style>@import "https://other.example/x.css";*{display:none}</style>`, `<meta http-equiv=refresh content="0;url=https://other.example/">`,
  `<video src="https://other.example/x" autoplay onloadstart="${RUN}"></video>`, `<audio src=x onerror="${RUN}">`, `<details open ontoggle="${RUN}">x</details>`, `<body onload="${RUN}">`, `<math><mtext><table><mglyph><style><img src=x onerror=${RUN}>`,
  `<template><img src=x onerror=${RUN}></template>`, `<noscript><p title="</noscript><img src=x onerror=${RUN}>">`, `<xmp><img src=x onerror=${RUN}></xmp>`, `<textarea autofocus onfocus=${RUN}>`, `<dialog open onclose=${RUN}>`, `<button popovertarget=x onclick=${RUN}>x</button>`,
  `<marquee onstart=${RUN}>x</marquee>`, `<input type=image src=x onerror=${RUN}>`, `<isindex action=javascript:${RUN}>`, `<x onclick=${RUN} style="position:fixed;inset:0">x</x>`, `<div style="background:url(https://other.example/x)">x</div>`, `<picture><source srcset="https://other.example/x"></picture>`,
];
const SCHEMES = ["javascript:globalThis.hacked=1", "JaVaScRiPt:globalThis.hacked=1", "java\tscript:globalThis.hacked=1", "&#106;avascript:globalThis.hacked=1", "data:text/html,<script>opener.hacked=1</script>", "vbscript:x", "file:///etc/passwd", "blob:https://other.example/x", "//other.example/x", "about:blank", "javascript&colon;x", "\u0001javascript:x", "chrome://settings", "ftp://other.example/x", "inpage"];
const LINKS = ["[x](URL)", "[x](<URL>)", "![x](URL)", "[![x](URL)](URL)", "<URL>", "[x][r]\n\n[r]: URL", '[x](URL "a\\" onclick=globalThis.hacked=1 b")'];
const ODD = [
  "```\"><img src=x onerror=globalThis.hacked=1>\ncode\n```", "```html\n<script>globalThis.hacked=1</script>\n```", "`<img src=x onerror=globalThis.hacked=1>`", "| <script>x</script> | b |\n|---|---|\n| <img src=x onerror=globalThis.hacked=1> | <br> |",
  "- <img src=x onerror=globalThis.hacked=1>\n- [ ] <input>", "> <iframe src=javascript:globalThis.hacked=1>", "# <svg onload=globalThis.hacked=1>", "<!-- --><img src=x onerror=globalThis.hacked=1><!-- -->", "<![CDATA[<img src=x onerror=globalThis.hacked=1>]]>", "<?php <img src=x> ?>",
  "**<b onmouseover=globalThis.hacked=1>x</b>**", "~~<u>x</u>~~", "&lt;img src=x onerror=globalThis.hacked=1&gt;", "\\<img src=x onerror=globalThis.hacked=1>", "<think><img src=x onerror=globalThis.hacked=1></think><img src=x onerror=globalThis.hacked=1>", "<think><script>globalThis.hacked=1</script>",
  '<tool_call>{"name": "<img src=x onerror=globalThis.hacked=1>", "arguments": {}}</tool_call>', "<tool_call><img src=x onerror=globalThis.hacked=1></tool_call>", '{"a": "<img src=x onerror=globalThis.hacked=1>"}', '["</code></pre><script>globalThis.hacked=1</script>"]',
  `${">".repeat(400)} x`, `${"- ".repeat(400)}x`, "[".repeat(3000), `${"*".repeat(3000)}a`, "`".repeat(3000), `${"![".repeat(800)}x`, "<".repeat(3000), `${"[x](".repeat(700)}`, `|${"a|".repeat(900)}\n|${"-|".repeat(900)}`, "\u202e<script>globalThis.hacked=1</script>", "\u0000<img src=x onerror=globalThis.hacked=1>", "_".repeat(4000), `${"a_".repeat(2000)}`, "&".repeat(3000), `${"<a ".repeat(800)}`, `${"\\".repeat(3001)}<img src=x>`,
  "[x](https://user:pass@other.example/%00)", "[constructor](https://other.example/)\n\n[__proto__]: javascript:x\n\n[y][__proto__]", "https://other.example/<script>", "www.other.example/\"onmouseover=globalThis.hacked=1", "x@other.example", "[mailto](mailto:x@other.example?body=<script>)",
];

/** @type {string[]} */
export const HOSTILE = [...TAGS, ...TAGS.map((tag) => `- a ${tag} b\n\n1. ${tag}`), ...SCHEMES.flatMap((url) => LINKS.map((link) => link.replaceAll("URL", url))), ...ODD];
