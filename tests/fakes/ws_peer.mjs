// npm's ws as a pipe, for the tests: each line of stdin is sent as a text frame, each frame is a line of stdout, and
// at the end comes one line {"closed": [code, reason]}. Usage: node ws_peer.mjs URL [TOKEN]
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const [url, token] = process.argv.slice(2);
const socket = new WebSocket(url, token ? { headers: { Authorization: `Bearer ${token}` } } : {});
const say = (line) => process.stdout.write(`${line}\n`);
socket.on('open', () => {
  createInterface({ input: process.stdin }).on('line', (line) => socket.send(line)).on('close', () => socket.close());
});
socket.on('message', (data, isBinary) => say(isBinary ? '{"binary": true}' : data.toString()));
socket.on('error', (error) => process.stderr.write(`${error.message}\n`));
socket.on('close', (code, reason) => {
  say(JSON.stringify({ closed: [code, reason.toString()] }));
  process.exit(0);
});
