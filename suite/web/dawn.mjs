// The page's work in node, on the npm package `webgpu` (Dawn, Chromium's implementation of WebGPU).
// Runs in the folder where the package is installed; the only argument is the address of the
// server.
import { readFileSync } from 'node:fs';
import { create, globals } from 'webgpu';

const [, server] = process.argv;
Object.assign(globalThis, globals);
const { version } = JSON.parse(readFileSync('node_modules/webgpu/package.json', 'utf8'));
const text = await (await fetch(`${server}/replay.js`)).text();
const { replay } = await import(`data:text/javascript,${encodeURIComponent(text)}`);
await replay(create([]), server, `node ${process.version}, npm webgpu ${version}`);
// The adapter would keep the process alive.
process.exit(0);
