use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use a2a::{
    AgentCard, CancelTaskRequest, GetTaskRequest, JsonRpcId, JsonRpcRequest, SVC_PARAM_EXTENSIONS,
    SVC_PARAM_VERSION, SendMessageRequest, SendMessageResponse, TRANSPORT_PROTOCOL_HTTP_JSON,
    TRANSPORT_PROTOCOL_JSONRPC, Task, methods,
};
use a2a_pb::protojson_conv::{self, ProtoJsonPayload};
use reqwest::{Client, Method, RequestBuilder, Url, header, redirect::Policy};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    CARD_PATH, Secret, Tap,
    reply::{Reply, garbage, payload, refused, result, unreachable},
};
use crate::{
    ids::{PeerId, WireId},
    transport::{Load, Packet, Report, Reporter, Transport},
    wire::{self, Terms, WireError},
};

/// Where another organisation is, what is shown to it, and how it is known.
pub struct PeerAddress {
    /// Its root: its agents are at `URL/agents/NAME`.
    pub url: Url,
    /// Agents that are elsewhere below its origin, by their names.
    pub elsewhere: BTreeMap<String, Url>,
    /// What is shown to it.
    pub credential: Option<Secret>,
    /// Who must have signed its certificate; the system's authorities, if nobody in particular.
    pub authority: Option<Vec<reqwest::Certificate>>,
    /// The certificate that is shown to it, with its key.
    pub certificate: Option<reqwest::Identity>,
}

/// How long a peer may take, and how much it may answer.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Of what answers hold.
    pub wire: wire::Limits,
    /// Bytes of an answer, or of a card.
    pub reply_bytes_max: usize,
    /// How long a connection may take, in milliseconds.
    pub connect_ms_max: u64,
    /// How long a packet may take in all, in milliseconds.
    pub reply_ms_max: u64,
    /// Packets on their way to one peer at a time; others wait.
    pub carried_max: usize,
}

impl ClientLimits {
    /// The times and the number of packets that nodes keep to, for answers of at most so many bytes.
    pub fn new(wire: wire::Limits, reply_bytes_max: usize) -> Self {
        ClientLimits { wire, reply_bytes_max, connect_ms_max: 5_000, reply_ms_max: 15_000, carried_max: 256 }
    }
}

/// What a client is made of.
pub struct ClientSpec {
    /// The peers.
    pub peers: BTreeMap<PeerId, PeerAddress>,
    /// How long they may take, and how much they may answer.
    pub limits: ClientLimits,
    /// Where it is written down what crosses, if it is.
    pub tap: Option<Arc<Tap>>,
    /// Where packets are carried.
    pub runtime: Handle,
}

/// Carries packets over A2A: JSON-RPC or HTTP+JSON, as the card of the receiver says.
pub struct A2aTransport {
    peers: BTreeMap<PeerId, Peer>,
    limits: ClientLimits,
    tap: Option<Arc<Tap>>,
    runtime: Handle,
    cards: Mutex<BTreeMap<(PeerId, String), Arc<Known>>>,
}

/// A peer, with what is its alone: connections, and turns, so that none waits for another.
struct Peer {
    id: PeerId,
    http: Client,
    turns: Semaphore,
    url: Url,
    elsewhere: BTreeMap<String, Url>,
    credential: Option<Secret>,
}

impl Peer {
    /// Where an agent of it is.
    fn door(&self, agent: &str) -> Url {
        self.elsewhere.get(agent).cloned().unwrap_or_else(|| below(&self.url, &["agents", agent]))
    }
}

/// What is known of an agent of a peer.
#[derive(Default)]
struct Known {
    card: Mutex<Option<Arc<Card>>>,
    /// One reads the card, others wait for it.
    reading: tokio::sync::Mutex<()>,
}

impl Known {
    fn card(&self) -> MutexGuard<'_, Option<Arc<Card>>> {
        self.card.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a card, what carrying needs.
struct Card {
    agent: String,
    url: Url,
    is_json_rpc: bool,
    terms: Result<Option<Terms>, &'static str>,
}

impl Card {
    fn passes_value(&self) -> bool {
        matches!(self.terms, Ok(Some(_)))
    }
}

impl A2aTransport {
    /// A client of these peers. It follows no redirects, and asks no proxy.
    pub fn new(spec: ClientSpec) -> Result<Self, reqwest::Error> {
        let mut peers = BTreeMap::new();
        for (id, address) in spec.peers {
            let mut http = Client::builder()
                .redirect(Policy::none())
                .no_proxy()
                .referer(false)
                .connect_timeout(Duration::from_millis(spec.limits.connect_ms_max));
            if let Some(authority) = address.authority {
                http = http.tls_certs_only(authority);
            }
            if let Some(certificate) = address.certificate {
                http = http.identity(certificate);
            }
            let peer = Peer {
                id,
                http: http.build()?,
                turns: Semaphore::new(spec.limits.carried_max),
                url: address.url,
                elsewhere: address.elsewhere,
                credential: address.credential,
            };
            peers.insert(id, peer);
        }
        let ClientSpec { limits, tap, runtime, .. } = spec;
        Ok(A2aTransport { peers, limits, tap, runtime, cards: Mutex::default() })
    }

    /// Carry a packet to its end.
    pub async fn exchange(&self, packet: &Packet) -> Report {
        let until = Instant::now() + Duration::from_millis(self.limits.reply_ms_max);
        let report = match timeout_at(until, self.turn(packet.peer)).await {
            // Whoever waits for a turn, of which there may be very many, holds little.
            Ok(Ok((peer, _turn))) => timeout_at(until, Box::pin(self.carry_through(peer, packet))).await,
            Ok(Err(report)) => Ok(Err(report)),
            Err(late) => Err(late),
        };
        let report = match report {
            Ok(Ok(report) | Err(report)) => report,
            Err(_) => Report::Unreachable("too-slow".to_owned()),
        };
        // An agent that is not where its card said, or not as it said, may have moved.
        if matches!(report, Report::Unreachable(_) | Report::Garbage(_) | Report::Refused(_)) {
            *self.known(packet.peer, &packet.agent).card.lock().unwrap_or_else(PoisonError::into_inner) =
                None;
        }
        report
    }

    async fn turn(&self, peer: PeerId) -> Result<(&Peer, SemaphorePermit<'_>), Report> {
        let peer = self.peer(peer)?;
        let turn = peer.turns.acquire().await.map_err(|_| Report::Unreachable("stopped".to_owned()))?;
        Ok((peer, turn))
    }

    async fn carry_through(&self, peer: &Peer, packet: &Packet) -> Result<Report, Report> {
        if packet.load == Load::Card {
            // Whoever asks wants to know it as it is now.
            self.known(packet.peer, &packet.agent).card().take();
        }
        let card = self.card(packet.peer, &packet.agent).await?;
        let (wire, limits) = (&packet.wire, &self.limits.wire);
        let standing = match &packet.load {
            Load::Card => return Ok(Report::Card(card.terms)),
            Load::Handoff { request, passes_value } => {
                let response = self.send(peer, &card, wire, request, *passes_value).await?;
                wire::answered(&response, wire, limits)
            }
            Load::Outcome { request } => {
                let response = self.send(peer, &card, wire, request, true).await?;
                let noted = wire::acknowledged(&response, wire);
                return noted.map(|()| Report::Noted).map_err(|error| garbage(error.word));
            }
            Load::Look { task } => {
                let asked = GetTaskRequest { id: task.clone(), history_length: None, tenant: None };
                let call = Call {
                    method: methods::GET_TASK,
                    http: Method::GET,
                    path: &["tasks", task],
                    body: &asked,
                };
                wire::standing(&self.call(peer, &card, wire, call, card.passes_value()).await?, wire, limits)
            }
            Load::Cancel { task } => {
                let asked = CancelTaskRequest { id: task.clone(), metadata: None, tenant: None };
                let named = format!("{task}:cancel");
                let call = Call {
                    method: methods::CANCEL_TASK,
                    http: Method::POST,
                    path: &["tasks", &named],
                    body: &asked,
                };
                let task: Task = self.call(peer, &card, wire, call, card.passes_value()).await?;
                wire::standing(&task, wire, limits)
            }
        };
        standing.map(Report::Standing).map_err(|error| garbage(error.word))
    }

    async fn send(
        &self,
        peer: &Peer,
        card: &Card,
        wire: &WireId,
        request: &SendMessageRequest,
        passes_value: bool,
    ) -> Result<SendMessageResponse, Report> {
        let call = Call {
            method: methods::SEND_MESSAGE,
            http: Method::POST,
            path: &["message:send"],
            body: request,
        };
        self.call(peer, card, wire, call, passes_value).await
    }

    async fn call<Q: ProtoJsonPayload, A: ProtoJsonPayload>(
        &self,
        peer: &Peer,
        card: &Card,
        wire: &WireId,
        call: Call<'_, Q>,
        passes_value: bool,
    ) -> Result<A, Report> {
        let body = protojson_conv::to_value(call.body).map_err(|_| refused("unwritable"))?;
        let id = wire.to_string();
        let asking = if card.is_json_rpc {
            let request = JsonRpcRequest::new(JsonRpcId::from(id.as_str()), call.method, Some(body));
            let text = serde_json::to_vec(&request).map_err(|_| refused("unwritable"))?;
            peer.http.request(Method::POST, card.url.clone()).body(text)
        } else {
            let url = below(&card.url, call.path);
            let asking = peer.http.request(call.http.clone(), url);
            if call.http == Method::GET { asking } else { asking.body(body.to_string()) }
        };
        let mut asking =
            asking.header(SVC_PARAM_VERSION, a2a::VERSION).header(header::CONTENT_TYPE, "application/json");
        if passes_value {
            asking = asking.header(SVC_PARAM_EXTENSIONS, wire::EXTENSION);
        }
        let value = self.ask(peer, &card.agent, asking).await?;
        payload(if card.is_json_rpc { result(value, &id)? } else { value })
    }

    /// Every request to a peer goes to its origin: what is shown to it goes nowhere else.
    async fn ask(&self, peer: &Peer, agent: &str, asking: RequestBuilder) -> Result<Value, Report> {
        let mut request = asking.build().map_err(|_| refused("unwritable"))?;
        if request.url().origin() != peer.url.origin() {
            return Err(garbage("other-origin"));
        }
        let tap = self.tap.as_ref();
        let mut tapped = tap.map(|tap| tap.begin(peer.id, Some(agent), &request)).transpose()?;
        if let Some(credential) = &peer.credential {
            request.headers_mut().insert(header::AUTHORIZATION, credential.header());
        }
        let response = peer.http.execute(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let reply = Reply::read(response, self.limits.reply_bytes_max).await?;
        if let Some(tapped) = &mut tapped {
            tapped.answered(status, Some(reply.body()));
        }
        reply.value()
    }

    fn peer(&self, peer: PeerId) -> Result<&Peer, Report> {
        self.peers.get(&peer).ok_or_else(|| refused("no-address"))
    }

    fn known(&self, peer: PeerId, agent: &str) -> Arc<Known> {
        let mut cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cards.entry((peer, agent.to_owned())).or_default())
    }

    async fn read_card(&self, peer: &Peer, agent: &str) -> Result<AgentCard, Report> {
        let url = below(&peer.door(agent), &CARD_PATH.split('/').skip(1).collect::<Vec<_>>());
        payload(self.ask(peer, agent, peer.http.get(url)).await?)
    }

    /// What an agent of a peer declares of its values, by its card as it is now.
    pub async fn declared(
        &self,
        peer: PeerId,
        agent: &str,
    ) -> Result<Result<Option<Terms>, WireError>, Report> {
        let wait = Duration::from_millis(self.limits.reply_ms_max);
        match tokio::time::timeout(wait, self.read_card(self.peer(peer)?, agent)).await {
            Ok(read) => read.map(|card| Terms::of_card(&card)),
            Err(_) => Err(Report::Unreachable("too-slow".to_owned())),
        }
    }

    /// The card of an agent, read once, and again after what was refused or went wrong.
    async fn card(&self, peer: PeerId, agent: &str) -> Result<Arc<Card>, Report> {
        let address = self.peer(peer)?;
        let known = self.known(peer, agent);
        let held = known.card().clone();
        let _reading = match held {
            Some(card) => return Ok(card),
            None => known.reading.lock().await,
        };
        if let Some(card) = &*known.card() {
            return Ok(Arc::clone(card));
        }
        let read = self.read_card(address, agent).await?;
        let terms = Terms::of_card(&read).map_err(|refused| refused.word);
        // The operator's own node is where its folder says, wherever others reach it.
        let card = Arc::new(match peer {
            PeerId::OPERATOR => {
                let (url, agent) = (address.door(agent), agent.to_owned());
                Card { agent, url, is_json_rpc: true, terms }
            }
            _ => chosen(&read, agent, &address.url, terms)?,
        });
        *known.card() = Some(Arc::clone(&card));
        Ok(card)
    }
}

impl Transport for A2aTransport {
    fn carry(self: Arc<Self>, packet: Packet, report: Reporter) {
        let runtime = self.runtime.clone();
        let mut once = Once(Some(report));
        runtime.spawn(async move {
            let report = self.exchange(&packet).await;
            once.tell(report);
        });
    }
}

/// Reports even where carrying was broken off.
struct Once(Option<Reporter>);

impl Once {
    fn tell(&mut self, report: Report) {
        if let Some(reporter) = self.0.take() {
            reporter(report);
        }
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.tell(Report::Unreachable("stopped".to_owned()));
    }
}

/// An operation in both bindings.
struct Call<'c, Q> {
    method: &'static str,
    http: Method,
    path: &'c [&'c str],
    body: &'c Q,
}

/// The first interface of a card that can be talked to. One elsewhere than its peer would be sent what is not for it.
fn chosen(
    card: &AgentCard,
    agent: &str,
    peer: &Url,
    terms: Result<Option<Terms>, &'static str>,
) -> Result<Card, Report> {
    let mut elsewhere = false;
    for interface in &card.supported_interfaces {
        let is_json_rpc = interface.protocol_binding == TRANSPORT_PROTOCOL_JSONRPC;
        let is_spoken = (is_json_rpc || interface.protocol_binding == TRANSPORT_PROTOCOL_HTTP_JSON)
            && interface.protocol_version.split('.').next() == Some("1")
            && interface.tenant.as_deref().unwrap_or_default().is_empty();
        let Some(url) = Url::parse(&interface.url).ok().filter(|_| is_spoken) else { continue };
        if url.origin() == peer.origin() {
            return Ok(Card { agent: agent.to_owned(), url, is_json_rpc, terms });
        }
        elsewhere = true;
    }
    Err(garbage(if elsewhere { "other-origin" } else { "no-interface" }))
}

/// The address of something below another.
fn below(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}
