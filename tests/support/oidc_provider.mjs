// An authorization server of another make: the npm package oidc-provider, on a free loopback port.
// Prints its origin as one line. POST /rotate signs with a new key from then on.
import { createServer } from "node:http";
import { generateKeyPairSync, randomUUID } from "node:crypto";

import { Provider } from "oidc-provider";

const RESOURCES = { "https://mcp.test/jwt": "jwt", "https://mcp.test/opaque": "opaque" };
const keys = [];

function newKey() {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = privateKey.export({ format: "jwk" });
  keys.unshift({ ...jwk, kid: randomUUID(), use: "sig", alg: "ES256" });
}

function provider(origin) {
  const made = new Provider(origin, {
    jwks: { keys: [...keys] },
    clients: [
      {
        client_id: "job",
        client_secret: "a-secret-of-the-job",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: "ES256",
        introspection_signed_response_alg: "ES256",
      },
    ],
    clientAuthMethods: ["client_secret_basic", "client_secret_post"],
    enabledJWA: { introspectionSigningAlgValues: ["ES256"] },
    scopes: ["notes.read"],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      jwtIntrospection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          audience: resource,
          scope: "notes.read",
          accessTokenFormat: RESOURCES[resource],
          accessTokenTTL: 300,
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
  return made.callback();
}

newKey();
let current;
const server = createServer((request, response) => {
  if (request.url === "/rotate") {
    newKey();
    current = provider(`http://127.0.0.1:${server.address().port}`);
    response.end();
    return;
  }
  current(request, response);
});
server.listen(0, "127.0.0.1", () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  current = provider(origin);
  console.log(origin);
});
