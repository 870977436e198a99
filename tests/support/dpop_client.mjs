// The MCP client of the npm package @modelcontextprotocol/client, with DPoP: signs its user in, then
// calls tools. Its arguments are a server's URL and its own redirect URI. It writes the URL at which its user signs in,
// and reads the parameters that the browser brought back; then reads calls and writes their results.
import { createInterface } from "node:readline";

import {
  Client,
  DpopSession,
  StreamableHTTPClientTransport,
  UnauthorizedError,
} from "@modelcontextprotocol/client";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const read = async () => (await lines.next()).value;
const write = (value) => console.log(JSON.stringify(value));

class Provider {
  redirectUrl = process.argv[3];
  clientMetadata = { client_name: "TypeScript", redirect_uris: [this.redirectUrl] };
  #dpop = DpopSession.create();
  dpop() { return this.#dpop; }
  clientInformation() { return this.client; }
  saveClientInformation(client) { this.client = client; }
  tokens() { return this.kept; }
  saveTokens(tokens) { this.kept = tokens; }
  codeVerifier() { return this.verifier; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  discoveryState() { return this.discovered; }
  saveDiscoveryState(state) { this.discovered = state; }
  redirectToAuthorization(url) { this.url = url; }
}

const provider = new Provider();
const url = new URL(process.argv[2]);
const open = () => new StreamableHTTPClientTransport(url, { authProvider: provider });
let transport = open();
const client = new Client({ name: "typescript", version: "1" });

async function signIn(error) {
  if (!(error instanceof UnauthorizedError)) throw error;
  write({ url: provider.url });
  await transport.finishAuth(new URLSearchParams(JSON.parse(await read())));
}

try {
  await client.connect(transport);
} catch (error) {
  await signIn(error);
  transport = open();
  await client.connect(transport);
}
write({ token_type: provider.kept.token_type, scope: provider.kept.scope });
for (let line = await read(); line; line = await read()) {
  const call = JSON.parse(line);
  try {
    write(await client.callTool(call).catch((error) => signIn(error).then(() => client.callTool(call))));
  } catch (error) {
    write({ error: String(error) });
  }
}
process.exit(0);
