//! Whoever calls at a door by the official client, in both bindings.

use a2a::{
    GetTaskRequest, Message, Part, Role, SendMessageConfiguration, SendMessageRequest, SendMessageResponse,
    Task,
};
use a2a_client::{A2AClient, Transport, jsonrpc::JsonRpcTransport, rest::RestTransport};
use relevo_node::ids::TaskId;
use reqwest::{Client, header};

/// The official client.
pub(crate) type Peer = A2AClient<Box<dyn Transport>>;

pub(crate) fn http(token: &str) -> Client {
    let headers = [(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect();
    Client::builder().no_proxy().default_headers(headers).build().unwrap()
}

/// The official client in both bindings.
pub(crate) fn peers(url: &str, token: &str) -> [(&'static str, Peer); 2] {
    [
        (
            "JSON-RPC",
            A2AClient::new(Box::new(JsonRpcTransport::new(http(token), url.to_owned())) as Box<dyn Transport>),
        ),
        (
            "HTTP+JSON",
            A2AClient::new(Box::new(RestTransport::new(http(token), url.to_owned())) as Box<dyn Transport>),
        ),
    ]
}

pub(crate) fn message(text: &str, at_once: bool) -> SendMessageRequest {
    SendMessageRequest {
        message: Message::new(Role::User, vec![Part::text(text)]),
        configuration: at_once.then_some(SendMessageConfiguration {
            accepted_output_modes: None,
            task_push_notification_config: None,
            history_length: None,
            return_immediately: Some(true),
        }),
        metadata: None,
        tenant: None,
    }
}

pub(crate) fn get(id: &str) -> GetTaskRequest {
    GetTaskRequest { id: id.to_owned(), history_length: None, tenant: None }
}

pub(crate) fn task(response: SendMessageResponse) -> Task {
    match response {
        SendMessageResponse::Task(task) => task,
        SendMessageResponse::Message(message) => panic!("a task was due, not {message:?}"),
    }
}

pub(crate) fn kept(task: &Task) -> TaskId {
    TaskId::parse(&task.id).unwrap()
}
