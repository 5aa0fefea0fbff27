//! The node file, `relevo.node/v1`: which agents are hosted, where, for whom. Parsed once, here; faults are told with their
//! line, and unknown keys with the nearest known one.

mod check;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use relevo::team::{TeamSpec, line_of, place_in, plainly};
use serde::Deserialize;

use crate::{
    machine::{MachineSpec, PeerSpec},
    wire::Limits,
};

/// The version of the node file.
pub const SCHEMA: &str = "relevo.node/v1";

/// A node file that cannot be used: where, what, and what to try.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", path.display(), line.map_or(String::new(), |l| format!(":{l}")))]
pub struct NodeFileError {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

impl NodeFileError {
    /// What is wrong, without where.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A node, as its file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// [`SCHEMA`].
    pub schema: String,
    /// The name of the organisation.
    pub name: String,
    /// Its agents: a team file.
    pub team: PathBuf,
    /// The agent behind the root of the address.
    pub entry: String,
    /// The folder of what the node keeps.
    pub state: PathBuf,
    /// The seed of everything random.
    pub seed: u64,
    /// Where it listens.
    #[serde(default)]
    pub listen: ListenSection,
    /// TLS, at its door and towards others.
    #[serde(default)]
    pub tls: Option<TlsSection>,
    /// How its agents learn, beyond what the team file says.
    #[serde(default)]
    pub learner: LearnerSection,
    /// How long things may take.
    #[serde(default)]
    pub time: TimeSection,
    /// How much may come in.
    #[serde(default)]
    pub limits: LimitsSection,
    /// What is kept.
    #[serde(default)]
    pub ledger: LedgerSection,
    /// Other organisations, by name.
    #[serde(default)]
    pub peers: BTreeMap<String, PeerSection>,
    /// The folder of the file.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSection {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether others than this machine may reach it.
    pub public: bool,
    /// What its cards say instead, where it is reached through something else.
    pub url: Option<String>,
}

impl Default for ListenSection {
    fn default() -> Self {
        ListenSection { address: SocketAddr::from(([127, 0, 0, 1], 4700)), public: false, url: None }
    }
}

/// TLS.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// The node's certificate and those that lead to its authority: a PEM file. Peers that ask for one are shown it too.
    pub certificate: PathBuf,
    /// Its key: a PEM file.
    pub key: PathBuf,
    /// The authorities of peers' certificates: a PEM file. With it, clients are asked for theirs.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show one.
    #[serde(default)]
    pub client: ClientCertificate,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// They may.
    #[default]
    Optional,
    /// They must.
    Required,
}

/// How the agents of a node learn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnerSection {
    /// Over how many handoffs of an agent its schedules run.
    pub horizon: u64,
}

impl Default for LearnerSection {
    fn default() -> Self {
        LearnerSection { horizon: 100_000 }
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeSection {
    /// A task, at most, in milliseconds.
    pub deadline_ms: u64,
    /// The outcome of a finished task, in seconds.
    pub outcome_after: u64,
    /// The time between two looks at a task of a peer, at most, in milliseconds.
    pub poll_ms: u64,
    /// How old the id of a handoff may be that comes in, in seconds.
    pub remember: u64,
}

impl Default for TimeSection {
    fn default() -> Self {
        let day = 24 * 3600;
        TimeSection { deadline_ms: 60_000, outcome_after: 7 * day, poll_ms: 1_000, remember: 30 * day }
    }
}

/// How much may come in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Bytes of a request.
    pub body_bytes_max: usize,
    /// Bytes of what is handed over, or comes back.
    pub payload_bytes_max: usize,
    /// Tasks that are not over.
    pub open_max: usize,
    /// Requests that wait for news of a task, by peer.
    pub streams_max: usize,
}

impl Default for LimitsSection {
    fn default() -> Self {
        LimitsSection {
            body_bytes_max: 1 << 20,
            payload_bytes_max: 700 << 10,
            open_max: 100_000,
            streams_max: 256,
        }
    }
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerSection {
    /// Entries of the ledger between two snapshots, which bound the time of a start.
    pub snapshot_entries: u64,
}

impl Default for LedgerSection {
    fn default() -> Self {
        LedgerSection { snapshot_entries: 1_000_000 }
    }
}

/// Another organisation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSection {
    /// Where its agents are: `URL/agents/NAME`.
    pub url: String,
    /// The hash of the token that it shows us, `blake3:HEX`; without one, it can ask for nothing.
    #[serde(default)]
    pub token: Option<String>,
    /// The certificate that it shows us, `sha256:HEX`; where there is a token too, both are needed.
    #[serde(default)]
    pub certificate: Option<String>,
    /// The authorities of its own certificate: a PEM file; those of the system, if absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The name of the variable that holds the token that we show it.
    #[serde(default)]
    pub key: Option<String>,
    /// The agents of ours that it may hand to.
    #[serde(default)]
    pub may_hand_to: BTreeSet<String>,
    /// The only facts that may leave to it; all public ones, if absent.
    #[serde(default)]
    pub facts: Option<BTreeSet<String>>,
    /// Requests per second that it may make.
    #[serde(default = "default_rate")]
    pub rate: f64,
    /// Requests that it may make at once.
    #[serde(default = "default_burst")]
    pub burst: f64,
    /// Tasks of it that are not over.
    #[serde(default = "default_open_max")]
    pub open_max: usize,
    /// What the address begins with at which it may be told of the end of its tasks; its own url, if absent.
    #[serde(default)]
    pub push: Option<Vec<String>>,
}

fn default_rate() -> f64 {
    1000.0
}

fn default_burst() -> f64 {
    2000.0
}

fn default_open_max() -> usize {
    10_000
}

impl NodeSpec {
    /// Read and check a node file, and the team file that it names.
    pub fn load(path: &Path) -> Result<(Self, TeamSpec), NodeFileError> {
        let (node, team) = Self::load_unjoined(path)?;
        node.knows_all(&team).map_err(|message| NodeFileError {
            path: path.to_owned(),
            line: None,
            message,
        })?;
        Ok((node, team))
    }

    /// The same, where organisations may still be unknown whose agents the team names.
    pub fn load_unjoined(path: &Path) -> Result<(Self, TeamSpec), NodeFileError> {
        let fail = |line, message| NodeFileError { path: path.to_owned(), line, message };
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail(None, format!("the node file cannot be read: {e}")))?;
        let fault =
            |e: toml::de::Error| fail(e.span().map(|s| line_of(&text, s.start)), plainly(e.message()));
        let table: toml::Table = toml::from_str(&text).map_err(fault)?;
        if let Some(schema) = table.get("schema").filter(|schema| schema.as_str() != Some(SCHEMA)) {
            let line = place_in(&text, &["schema".to_owned()]);
            return Err(fail(line, format!("schema is {schema}; a node file has {SCHEMA:?}")));
        }
        let mut node: NodeSpec = toml::from_str(&text).map_err(fault)?;
        node.directory = path.parent().unwrap_or(Path::new("")).to_owned();
        let at = |place: &[&str]| {
            let place: Vec<String> = place.iter().map(|key| (*key).to_owned()).collect();
            place_in(&text, &place)
        };
        let team = TeamSpec::load(&node.team_file())
            .map_err(|e| fail(at(&["team"]), format!("the team cannot be served: {e}")))?;
        node.check(&team).map_err(|(place, message)| {
            let place: Vec<&str> = place.iter().map(String::as_str).collect();
            fail(at(&place), message)
        })?;
        Ok((node, team))
    }

    /// The path of the team file.
    pub fn team_file(&self) -> PathBuf {
        self.directory.join(&self.team)
    }

    /// The folder of what the node keeps.
    pub fn state_folder(&self) -> PathBuf {
        self.directory.join(&self.state).join(&self.name)
    }

    /// How much may come in.
    pub fn wire_limits(&self) -> Limits {
        Limits {
            payload_bytes_max: self.limits.payload_bytes_max,
            remembered_ms: self.time.remember.saturating_mul(1000),
        }
    }

    /// How its machine is to be.
    pub fn machine(&self) -> MachineSpec {
        let peer = |(name, section): (&String, &PeerSection)| {
            let PeerSection { may_hand_to, facts, open_max, .. } = section.clone();
            (name.clone(), PeerSpec { name: name.clone(), may_hand_to: Some(may_hand_to), facts, open_max })
        };
        MachineSpec {
            name: self.name.clone(),
            seed: self.seed,
            horizon: self.learner.horizon,
            deadline_ms: self.time.deadline_ms,
            outcome_after_ms: self.time.outcome_after.saturating_mul(1000),
            poll_ms: self.time.poll_ms,
            remember_ms: self.time.remember.saturating_mul(1000),
            open_max: self.limits.open_max,
            snapshot_entries: self.ledger.snapshot_entries,
            wire: self.wire_limits(),
            peers: self.peers.iter().map(peer).collect(),
        }
    }
}
