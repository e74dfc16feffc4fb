// For each line on standard input: one request through a snippet, and a line with its status and how often it read.
// node ask.mjs FOLDER SOURCE URL, where SOURCE is `file PATH` or `vault URL TOKEN_FILE`; a ws: URL is connected to.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, kind, ...rest] = process.argv.slice(2);
const url = rest.pop();
const { AcaToken, NoTokenError, fromFile, fromVault } = await import(pathToFileURL(`${folder}/node/aca-token.mjs`));
const { connected } = await import(pathToFileURL(`${folder}/websocket/aca-realtime.mjs`));

let reads = 0;
const read = { file: fromFile, vault: fromVault }[kind](...rest);
const aca = new AcaToken(() => (reads++, read()));

async function call() {
  const response = await aca.fetch(url);
  await response.arrayBuffer();
  return response.status;
}

async function speak() {
  let socket;
  try {
    socket = await connected(aca, url);
  } catch (error) {
    if (error instanceof NoTokenError) throw error;
    console.error(error);
    return 401; // which it does not tell from other failures
  }
  const echo = new Promise((resolve) => (socket.onmessage = (message) => resolve(message.data)));
  socket.send("ping");
  const status = (await echo) === "ping" ? 200 : 500;
  socket.close();
  return status;
}

for await (const _ of createInterface({ input: process.stdin })) {
  let status = 0;
  try {
    status = await (url.startsWith("ws") ? speak() : call());
  } catch (error) {
    console.error(error);
    if (!(error instanceof NoTokenError)) throw error;
  }
  console.log(`${status} ${reads}`);
}
