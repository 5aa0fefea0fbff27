//! A node, put together: what its file says, its store, its agents, its door, and what carries its packets.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::OptionFuture};
use relevo::{
    model::environment::Environment,
    stage::Stage,
    tasks::TaskError,
    team::{AgentSpec, Decides, TeamSpec},
};
use relevo_core::{ids::AgentId, units::UnitError};
use tokio::{net::TcpListener, runtime::Handle};

use crate::{
    actor::{Node, Parts, Running},
    door::Host,
    folder::Folder,
    ids::PeerId,
    machine::{MachineError, number_peers},
    server::{AgentDoor, ServerLimits, ServerSpec, Tls, authorities, router, serve as serve_door},
    spec::{ClientCertificate, NodeSpec},
    store::{StoreError, sqlite::SqliteStore},
    transport::a2a::{
        A2aTransport, ClientLimits, ClientSpec, Identities, Identity, PeerAddress, Pusher, Secret, Tap,
        TokenHash,
    },
    wire::{Emit, TauUnit, Terms},
};

/// How long requests that have begun may take when a node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a node cannot be served, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What it decides and keeps.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its team.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A number of its team file.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The system refuses something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// What its file says cannot be done.
    #[error("{0}")]
    Unfit(String),
}

/// Serve a node until `stop` comes: what has begun is answered, nothing more is taken. `ready` is told the address once it
/// can be reached. What is asked of others, and answered, is appended to the file `tap`, if there is one.
pub async fn serve(
    spec: &NodeSpec,
    team: TeamSpec,
    tap: Option<&Path>,
    ready: impl FnOnce(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let folder = Folder::open(&spec.state_folder()).map_err(|source| io_error("the state folder", source))?;
    let mut store = SqliteStore::open(folder.path())?;
    let machine = spec.machine();
    let names = number_peers(&mut store, &machine)?;
    let doors = doors(&spec.name, &team)?;
    let team_folder = spec.team_file().parent().map(|folder| folder.to_owned()).unwrap_or_default();
    // A process serves one node as long as it lives.
    let stage: &'static Stage = Box::leak(Box::new(Stage::for_node(team, &team_folder, names.clone())?));
    let tls = tls(spec)?;
    let listener = listen(spec.listen.address).await?;
    let address = listener.local_addr().map_err(|source| io_error("listening", source))?;
    // The operator is on this machine: where others come in by TLS or by another name, it has a door of its own.
    let beside = match tls.is_some() || spec.listen.url.is_some() {
        false => None,
        true => Some(listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?),
    };
    let operators = beside.as_ref().map_or(Ok(address), TcpListener::local_addr);
    let operators = operators.map_err(|source| io_error("listening", source))?;
    let number = |name: &str| names.iter().position(|known| known == name).map(|n| PeerId(n as u32));
    let open_tap = |path: &Path| {
        let tap = Tap::open(path, names.clone(), stage.clock()).map(Arc::new);
        tap.map_err(|source| io_error(&format!("the tap {}", path.display()), source))
    };
    let tap = tap.map(open_tap).transpose()?;
    let transport = Arc::new(client(spec, number, tap.clone())?);
    let operator = folder.operator_token().map_err(|source| io_error("the operator's token", source))?;
    let identities = identities(spec, &operator, number)?;
    let (node, running) = Node::start(Parts {
        stage,
        spec: machine,
        store: Box::new(store),
        transport,
        runtime: Handle::current(),
        approvals: folder.path().to_owned(),
    })?;
    let host: Arc<dyn Host> = node.clone();
    let pusher = Pusher::new(&host, identities.clone(), tap);
    let pusher = Arc::new(pusher.map_err(|e| ServeError::Unfit(format!("peers cannot be told: {e}")))?);
    let told = Arc::clone(&pusher);
    node.listen(Box::new(move |peer, task| told.ended(peer, task)));
    pusher.start(&Handle::current());
    let limits = server_limits(spec);
    let scheme = if spec.tls.is_some() { "https" } else { "http" };
    let server = ServerSpec {
        agents: doors,
        entry: Some(spec.entry.clone()),
        url: spec.listen.url.clone().unwrap_or_else(|| format!("{scheme}://{address}")),
        limits,
        identities,
        host,
        clock: stage.clock(),
    };
    let beside = beside.map(|beside| (beside, router(server.clone().operators(operators))));
    let door = router(server);
    folder.tell_address(operators).map_err(|source| io_error("the address", source))?;
    ready(&format!("{scheme}://{address}"));
    let stop = stop.shared();
    let doors = async {
        let beside =
            beside.map(|(beside, door)| serve_door(beside, door, &limits, None, stop.clone(), DRAIN));
        let beside = async { OptionFuture::from(beside).await.unwrap_or(Ok(())) };
        let door = serve_door(listener, door, &limits, tls, stop.clone(), DRAIN);
        tokio::try_join!(door, beside).map(drop)
    };
    let served = until_ended(running, doors, &node).await;
    folder.forget_address();
    served
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| io_error(&format!("[listen] address {address}"), source))
}

/// Serve the door until it is closed, or there is nothing behind it any more.
async fn until_ended(
    running: Running,
    door: impl Future<Output = io::Result<()>>,
    node: &Arc<Node>,
) -> Result<(), ServeError> {
    let mut ended = tokio::task::spawn_blocking(move || running.join());
    let served = tokio::select! {
        served = door => Some(served),
        machine = &mut ended => {
            return Err(match machine {
                Ok(Ok(Err(error))) => error.into(),
                _ => ServeError::Unfit("the node's thread has ended; please report this".into()),
            });
        }
    };
    node.stop();
    if let Ok(Ok(Err(error))) = ended.await {
        return Err(error.into());
    }
    served.unwrap_or(Ok(())).map_err(|source| io_error("serving", source))
}

/// What is declared of each agent. What the team file calls things is not told.
fn doors(organisation: &str, team: &TeamSpec) -> Result<Vec<AgentDoor>, ServeError> {
    let emit = match team.learner.decides {
        Decides::Before => Emit::Activation,
        Decides::After => Emit::Operation,
    };
    let door = |(agent, id): (&AgentSpec, AgentId)| {
        let learner = team.participant(id, 1)?.learner;
        let several = agent.operations.len() > 1;
        Ok(AgentDoor {
            name: agent.name.clone(),
            description: format!("{} of {organisation}", agent.name),
            tags: vec![agent.name.clone()],
            terms: Some(Terms {
                bounds: learner.bounds,
                discount: team.learner.discount,
                tau_unit: TauUnit::Call,
                emit: if several { Emit::Activation } else { emit },
            }),
        })
    };
    team.local().zip((0..).map(AgentId)).map(door).collect()
}

fn client(
    spec: &NodeSpec,
    number: impl Fn(&str) -> Option<PeerId>,
    tap: Option<Arc<Tap>>,
) -> Result<A2aTransport, ServeError> {
    let environment = Environment::of(&spec.directory).map_err(ServeError::Unfit)?;
    let own = match &spec.tls {
        None => None,
        Some(tls) => {
            let pem = [read(&spec.directory.join(&tls.certificate))?, read(&spec.directory.join(&tls.key))?]
                .concat();
            let unfit = |_| ServeError::Unfit("[tls] the certificate and its key do not fit".to_owned());
            Some(reqwest::Identity::from_pem(&pem).map_err(unfit)?)
        }
    };
    let mut peers = BTreeMap::new();
    for (name, peer) in &spec.peers {
        let unfit = |what: &str| ServeError::Unfit(format!("[peers.{name}] {what}"));
        let credential = match &peer.key {
            None => None,
            Some(key) => {
                let token = environment.get(key).ok_or_else(|| {
                    unfit(&format!(
                        "key: there is no variable {key}: set it, or write it into .env beside the node file"
                    ))
                })?;
                Some(Secret::bearer(token.trim()).ok_or_else(|| unfit("key: this is no token"))?)
            }
        };
        let url = peer.url.parse().map_err(|_| unfit("url: this is no address"))?;
        if let Some(id) = number(name) {
            let authority = match &peer.ca {
                None => None,
                Some(ca) => {
                    let found =
                        authorities(&spec.directory.join(ca)).map_err(|e| unfit(&format!("ca: {e}")))?;
                    let read: Result<_, _> =
                        found.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
                    Some(read.map_err(|_| unfit("ca: its certificates cannot be used"))?)
                }
            };
            let (elsewhere, certificate) = (BTreeMap::new(), own.clone());
            peers.insert(id, PeerAddress { url, elsewhere, credential, authority, certificate });
        }
    }
    let limits = ClientLimits::new(spec.wire_limits(), spec.limits.body_bytes_max);
    A2aTransport::new(ClientSpec { peers, limits, tap, runtime: Handle::current() })
        .map_err(|e| ServeError::Unfit(format!("peers cannot be called: {e}")))
}

fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|source| io_error(&path.display().to_string(), source))
}

/// TLS at the door, if there is to be any.
fn tls(spec: &NodeSpec) -> Result<Option<Tls>, ServeError> {
    let Some(tls) = &spec.tls else { return Ok(None) };
    let place = |path: &PathBuf| spec.directory.join(path);
    let client = tls.client_ca.as_ref().map(place);
    let client = client.as_deref().map(|ca| (ca, tls.client == ClientCertificate::Required));
    Tls::new(&place(&tls.certificate), &place(&tls.key), client).map(Some).map_err(ServeError::Unfit)
}

fn identities(
    spec: &NodeSpec,
    operator: &str,
    number: impl Fn(&str) -> Option<PeerId>,
) -> Result<Identities, ServeError> {
    let mut known = BTreeMap::new();
    let (rate, burst) = (1e6, 1e6);
    let token = Some(TokenHash::of(operator));
    known.insert(PeerId::OPERATOR, Identity { token, certificate: None, rate, burst, push: vec![] });
    for (name, peer) in &spec.peers {
        let push = peer.push.clone().unwrap_or_else(|| vec![peer.url.clone()]);
        let push: Result<_, _> = push.iter().map(|url| url.parse()).collect();
        let push = push.map_err(|_| ServeError::Unfit(format!("[peers.{name}] push: this is no address")))?;
        let token = peer.token.as_ref().and_then(|token| token.parse().ok());
        if let Some(id) = number(name) {
            let (rate, burst) = (peer.rate, peer.burst);
            let certificate = peer.certificate.as_ref().and_then(|certificate| certificate.parse().ok());
            known.insert(id, Identity { token, certificate, rate, burst, push });
        }
    }
    Ok(Identities::new(known, spec.listen.address.ip().is_loopback()))
}

fn server_limits(spec: &NodeSpec) -> ServerLimits {
    ServerLimits {
        wire: spec.wire_limits(),
        body_bytes_max: spec.limits.body_bytes_max,
        header_ms_max: 10_000,
        body_ms_max: 30_000,
        wait_ms_max: spec.time.deadline_ms,
        streams_max: spec.limits.streams_max,
        connections_max: 512,
    }
}

fn io_error(what: &str, source: io::Error) -> ServeError {
    ServeError::Io { what: what.to_owned(), source }
}
