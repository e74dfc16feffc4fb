// Tokens of aca-tokend for Node 18 and newer:
//   const aca = new AcaToken(fromFile("/run/aca/bookings.json"));
//   const response = await aca.fetch("https://aca.example.com/api/engine/v2/users/current");
import { readFile } from "node:fs/promises";

const PATIENCE = 10_000; // milliseconds: how often to read again while the next token is not there yet

export class NoTokenError extends Error {}

export class AcaToken {
  #read;
  #document;
  #readAgain = 0;

  /** @param {() => Promise<object>} read such as `fromFile(…)` */
  constructor(read) {
    this.#read = read;
  }

  /** `fetch` with the token; a 401 is tried again once, if there is another token by then. */
  async fetch(url, options = {}) {
    const document = await this.current();
    const response = await send(url, options, document);
    const other = response.status === 401 ? await this.otherThan(document) : null;
    if (!other || options.body instanceof ReadableStream) return response; // a stream cannot be sent twice
    await response.body?.cancel();
    return send(url, options, other);
  }

  /** The document with the token to use now. Throws NoTokenError. */
  async current() {
    const document = this.#document;
    if (document && Date.now() < Math.min(Date.parse(document.expires_at), this.#readAgain)) return document;
    try {
      return await this.#fetchDocument();
    } catch (error) {
      if (document && Date.now() < Date.parse(document.expires_at)) return document; // it still works
      throw error;
    }
  }

  /** After a 401: another document than the refused one, null if there is none. */
  async otherThan(refused) {
    const other = await this.#fetchDocument().catch(() => null);
    return other && other.access_token !== refused.access_token ? other : null;
  }

  async #fetchDocument() {
    this.#soonest(this.#document); // other calls go on with this one meanwhile
    let document;
    try {
      document = await this.#read();
    } catch (error) {
      throw new NoTokenError(`no token can be read: ${error.code ?? error.name}`);
    }
    if (!(Date.parse(document?.expires_at) > Date.now())) throw new NoTokenError("the published token has expired");
    this.#document = document;
    this.#soonest(document);
    this.#readAgain = Math.max(this.#readAgain, Date.parse(document.refresh_after));
    return document;
  }

  #soonest(document) {
    const left = document ? Date.parse(document.expires_at) - Date.now() : 0;
    this.#readAgain = Date.now() + Math.min(PATIENCE, left / 4);
  }
}

function send(url, options, document) {
  const headers = new Headers(options.headers);
  headers.set("Authorization", document.authorization);
  return fetch(url, { ...options, headers });
}

/** Reads the JSON file that the daemon writes. */
export const fromFile = (path) => async () => JSON.parse(await readFile(path, "utf8"));

/** Reads a KV version 2 secret, such as https://vault:8200/v1/secret/data/aca/bookings, with the Vault token in a file. */
export const fromVault = (url, tokenFile) => async () => {
  const token = (await readFile(tokenFile, "utf8")).trim();
  const response = await fetch(url, { headers: { "X-Vault-Token": token }, signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw Object.assign(new Error(), { code: `HTTP ${response.status}` });
  return (await response.json()).data.data;
};
