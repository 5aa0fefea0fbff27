"""The official Python client at a node's door: `peer.py URL TOKEN EXTENSION ID...`.

For each binding, without and with the extension, one line of JSON tells what came of it.
"""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.service_parameters import ServiceParametersFactory, with_a2a_extensions
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict

url, token, extension, *ids = sys.argv[1:]


def message(handoff, text):
    sent = a2a.Message(message_id=handoff or f"plain-{text}", role=a2a.ROLE_USER, parts=[a2a.Part(text=text)])
    if handoff:
        sent.extensions.append(extension)
        sent.metadata.update({extension: {"handoffId": handoff, "deadlineMs": 60000}})
    return sent


async def talk(http, binding, handoff):
    card = await A2ACardResolver(http, url).get_agent_card()
    factory = ClientFactory(
        ClientConfig(
            streaming=False,
            httpx_client=http,
            supported_protocol_bindings=[binding],
        )
    )
    client = factory.create(card)
    extensions = [with_a2a_extensions([extension])] if handoff else []
    context = ClientCallContext(service_parameters=ServiceParametersFactory.create(extensions))

    request = a2a.SendMessageRequest(message=message(handoff, f"{binding}-{bool(handoff)}"))
    answers = [answer async for answer in client.send_message(request, context=context)]
    task = answers[-1].task
    again = await client.get_task(a2a.GetTaskRequest(id=task.id), context=context)
    listed = await client.list_tasks(a2a.ListTasksRequest(), context=context)
    try:
        await client.cancel_task(a2a.CancelTaskRequest(id=task.id), context=context)
        refused = None
    except Exception as error:  # noqa: BLE001
        refused = type(error).__name__
    extended = await client.get_extended_agent_card(a2a.GetExtendedAgentCardRequest(), context=context)

    streaming = ClientFactory(
        ClientConfig(streaming=True, httpx_client=http, supported_protocol_bindings=[binding])
    ).create(card)
    request = a2a.SendMessageRequest(message=message(None, f"{binding}-{bool(handoff)}-streamed"))
    events = [answer.WhichOneof("payload") async for answer in streaming.send_message(request, context=context)]

    metadata = MessageToDict(task.status.message.metadata).get(extension)
    part = task.artifacts[0].parts[0]
    print(
        json.dumps(
            {
                "binding": binding,
                "state": a2a.TaskState.Name(task.status.state),
                "payload": part.text or part.raw.decode(),
                "metadata": metadata,
                "again": again == task,
                "listed": task.id in [known.id for known in listed.tasks],
                "refused": refused,
                "extended": extended.name,
                "events": events,
            }
        ),
        flush=True,
    )


async def main():
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, trust_env=False) as http:
        for binding in ["JSONRPC", "HTTP+JSON"]:
            for handoff in [None, ids.pop(0)]:
                await talk(http, binding, handoff)


asyncio.run(main())
