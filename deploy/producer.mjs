// Hands ids over to Cavendish from Node.js (18 or newer) with nothing installed: one push into a list of the Redis broker.
//   node producer.mjs redis://127.0.0.1:6379/0 nano-banana https://example.com/hook ID ...
import { randomUUID } from "node:crypto";
import net from "node:net";
import tls from "node:tls";

function message(ids, wishes) {
  const id = randomUUID();
  return JSON.stringify({
    body: Buffer.from(JSON.stringify([[ids], wishes, {}])).toString("base64"),
    "content-type": "application/json",
    "content-encoding": "utf-8",
    headers: { task: "cavendish.submit", id, argsrepr: `${ids.length} ids, first ${ids[0]}` },
    properties: { body_encoding: "base64", delivery_tag: id },
  });
}

const spoken = (words) => `*${words.length}\r\n` + words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("");

// Resolves when Redis has the message; rejects with its refusal, or where it does not answer. Sending again is harmless.
async function submit(broker, ids, wishes) {
  const { protocol, hostname, port, username, password, pathname, searchParams } = new URL(broker);
  const local = protocol === "redis+socket:"; // what `cavendish up` prints as part=broker
  const where = local ? { path: decodeURIComponent(pathname) } : { host: hostname, port: Number(port || 6379), servername: hostname };
  const login = [username, password].filter(Boolean).map(decodeURIComponent);
  const database = (local ? searchParams.get("virtual_host") : pathname.slice(1)) || "0";
  const commands = [["SELECT", database], ["LPUSH", "cavendish.submit", message(ids, wishes)]];
  if (login.length) commands.unshift(["AUTH", ...login]);
  const socket = (protocol === "rediss:" ? tls : net).connect(where);
  socket.setTimeout(5000, () => socket.destroy(new Error("Redis does not answer.")));
  socket.write(commands.map(spoken).join(""));
  let said = "";
  for await (const piece of socket) {
    said += piece;
    const replies = said.split("\r\n").slice(0, -1);
    const refusal = replies.find((reply) => reply.startsWith("-"));
    if (refusal) throw new Error(`Redis refuses: ${refusal.slice(1)}`);
    if (replies.length === commands.length) return;
  }
  throw new Error("Redis hung up.");
}

const [broker, service, webhook, ...ids] = process.argv.slice(2);
try {
  if (!ids.length) throw new Error("Usage: node producer.mjs BROKER SERVICE WEBHOOK ID ...");
  await submit(broker, ids, { service, webhook, deadline: 900, metadata: { from: "node" } });
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
