// The realtime API, with the WebSocket that Node has from version 22:
//   const socket = await connected(new AcaToken(fromFile(…)), "wss://aca.example.com/control/websocket");

/** An open connection. If it fails it is tried again once, if there is another token by then. */
export async function connected(aca, url) {
  const document = await aca.current();
  try {
    return await open(url, document);
  } catch (error) {
    const other = await aca.otherThan(document); // WebSocket does not tell a 401 from other failures
    if (!other) throw error;
    return open(url, other);
  }
}

function open(url, document) {
  const socket = new WebSocket(`${url}?bearer_token=${encodeURIComponent(document.access_token)}`);
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error(`no connection to ${url}`));
  });
}
