//! The network side of a node: its agents' doors and cards under one address, and the serving of them.

mod accept;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use a2a_pb::protojson_conv;
use a2a_server::{jsonrpc::jsonrpc_router, rest::rest_router};
use axum::{Router, http::header, middleware, routing::get};
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;

pub use accept::Tls;
pub(crate) use accept::authorities;

use crate::{
    door::Host,
    ids::PeerId,
    transport::a2a::{CARD_PATH, Clock, Door, Gate, Identities, activate, admit, card, rest},
    wire::{self, Terms},
};
use accept::Entrance;

/// An agent that others may hand to.
#[derive(Clone, Debug)]
pub struct AgentDoor {
    /// Its name, which is in its address.
    pub name: String,
    /// What it does, for people.
    pub description: String,
    /// What it does, for whoever searches.
    pub tags: Vec<String>,
    /// What it declares of its values, if it tells them.
    pub terms: Option<Terms>,
}

/// How much may come in, and how slowly.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Of what messages hold.
    pub wire: wire::Limits,
    /// Bytes of a request.
    pub body_bytes_max: usize,
    /// How long a request's header may take, in milliseconds.
    pub header_ms_max: u64,
    /// How long a request's body may take, in milliseconds.
    pub body_ms_max: u64,
    /// How long one request may wait for the end of a task, in milliseconds.
    pub wait_ms_max: u64,
    /// Streams, and requests that wait, that one peer may have open.
    pub streams_max: usize,
    /// Connections in all.
    pub connections_max: usize,
}

/// What a server is made of.
#[derive(Clone)]
pub struct ServerSpec {
    /// The agents that have a door.
    pub agents: Vec<AgentDoor>,
    /// The one whose card stands at the root, if one does.
    pub entry: Option<String>,
    /// Where the root is, as cards say it.
    pub url: String,
    /// How much may come in.
    pub limits: ServerLimits,
    /// Who is known.
    pub identities: Identities,
    /// Who answers.
    pub host: Arc<dyn Host>,
    /// The time.
    pub clock: Clock,
}

impl ServerSpec {
    /// The same for the operator alone, at another address.
    pub(crate) fn operators(self, address: SocketAddr) -> Self {
        let identities = self.identities.alone(PeerId::OPERATOR);
        ServerSpec { identities, url: format!("http://{address}"), ..self }
    }
}

/// The doors and the cards: of each agent at `/agents/NAME`, and of the entry at the root too.
pub fn router(spec: ServerSpec) -> Router {
    let gate = Arc::new(Gate::new(spec.identities, spec.limits, spec.clock, Some(Arc::clone(&spec.host))));
    let root = spec.url.trim_end_matches('/');
    let mut router = Router::new();
    for agent in &spec.agents {
        let path = format!("/agents/{}", agent.name);
        let url = format!("{root}{path}");
        let card = card(agent, &url);
        let door = Arc::new(Door {
            host: Arc::clone(&spec.host),
            gate: Arc::clone(&gate),
            agent: agent.name.clone(),
            card: card.clone(),
        });
        let activated = middleware::from_fn_with_state(agent.terms.is_some(), activate);
        let admitted = middleware::from_fn_with_state(Arc::clone(&gate), admit);
        let guarded = |doors: Router| doors.route_layer(activated.clone()).route_layer(admitted.clone());
        let rpc = jsonrpc_router(Arc::clone(&door));
        let rest = rest_router(door).route_layer(middleware::from_fn(rest));
        let doors = guarded(rpc.clone().merge(rest)).merge(card_router(&card));
        if spec.entry.as_ref() == Some(&agent.name) {
            router = router.merge(doors.clone());
        }
        router = router.nest(&path, doors).nest(&format!("{path}/"), guarded(rpc));
    }
    router
}

fn card_router(card: &a2a::AgentCard) -> Router {
    let text = protojson_conv::to_value(card).unwrap_or_default().to_string();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "max-age=300")];
    Router::new().route(CARD_PATH, get(move || async move { (headers, text) }))
}

/// Serve until `stop` comes, then take no more and end what has begun, for at most `drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &ServerLimits,
    tls: Option<Tls>,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> io::Result<()> {
    let handle = Handle::new();
    let mut server = axum_server::from_tcp(listener.into_std()?)?
        .acceptor(Entrance::new(limits.connections_max, tls))
        .handle(handle.clone())
        .http1_only();
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_ms_max))
        .max_headers(64);
    let mut serving = std::pin::pin!(server.serve(router.into_make_service()));
    tokio::select! {
        ended = &mut serving => return ended,
        () = stop => handle.graceful_shutdown(Some(drain)),
    }
    serving.await
}
