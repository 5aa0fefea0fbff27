// The official JavaScript client at a node's door: `peer.mjs URL TOKEN EXTENSION ID...`.
// For each binding, without and with the extension, one line of JSON tells what came of it.
import { isDeepStrictEqual } from "node:util";
import {
  ClientFactory, DefaultAgentCardResolver, JsonRpcTransportFactory, RestTransportFactory, ServiceParameters,
  withA2AExtensions,
} from "@a2a-js/sdk/client";

const [url, token, extension, ...ids] = process.argv.slice(2);
const fetchImpl = (input, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set("authorization", `Bearer ${token}`);
  return fetch(input, { ...init, headers });
};

const message = (handoff, text) => ({
  messageId: handoff ?? `plain-js-${text}`, contextId: "", taskId: "", role: 1,
  parts: [{ content: { $case: "text", value: text }, metadata: undefined, filename: "", mediaType: "" }],
  metadata: handoff && { [extension]: { handoffId: handoff, deadlineMs: 60000 } },
  extensions: handoff ? [extension] : [], referenceTaskIds: [],
});
const request = (message) => ({ tenant: "", message, configuration: undefined, metadata: undefined });

for (const binding of ["JSONRPC", "HTTP+JSON"]) {
  for (const handoff of [undefined, ids.shift()]) {
    const factory = new ClientFactory({
      transports: [binding === "JSONRPC" ? new JsonRpcTransportFactory({ fetchImpl }) : new RestTransportFactory({ fetchImpl })],
      cardResolver: new DefaultAgentCardResolver({ fetchImpl }),
    });
    const client = await factory.createFromUrl(`${url}/.well-known/agent-card.json`, "");
    const options = handoff ? { serviceParameters: ServiceParameters.create(withA2AExtensions(extension)) } : {};

    const task = await client.sendMessage(request(message(handoff, `${binding}-${!!handoff}`)), options);
    const again = await client.getTask({ tenant: "", id: task.id }, options);
    const listed = await client.listTasks(
      { tenant: "", contextId: "", status: 0, pageToken: "", statusTimestampAfter: undefined }, options);
    let refused = null;
    try {
      await client.cancelTask({ tenant: "", id: task.id, metadata: undefined }, options);
    } catch (error) {
      refused = error.name;
    }
    const extended = await client.getAgentCard(options);
    const events = [];
    const streamed = request(message(undefined, `${binding}-${!!handoff}-streamed`));
    for await (const event of client.sendMessageStream(streamed, options)) events.push(event.payload.$case);

    const { content } = task.artifacts[0].parts[0];
    console.log(JSON.stringify({
      binding,
      state: task.status.state === 3 ? "TASK_STATE_COMPLETED" : String(task.status.state),
      payload: content.$case === "raw" ? content.value.toString() : content.value,
      metadata: task.status.message?.metadata?.[extension] ?? null,
      again: isDeepStrictEqual(again, task),
      listed: listed.tasks.some((known) => known.id === task.id),
      refused, extended: extended.name, events,
    }));
  }
}
