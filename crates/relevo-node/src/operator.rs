//! The operator of a node: hands tasks to its agents, as any other organisation would, and says how good they were. There is
//! no second door.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use relevo::artifact::Artifact;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    folder::Folder,
    ids::{PeerId, WireId},
    spec::NodeSpec,
    transport::{
        Load, Packet, Report,
        a2a::{A2aTransport, ClientLimits, ClientSpec, PeerAddress, Secret},
    },
    wire::{self, Progress, Standing},
};

/// The longest time between two looks at a task.
const LOOK: Duration = Duration::from_millis(200);
/// The time before a node is asked again that could not take something just now.
const AGAIN: Duration = Duration::from_millis(200);

/// The operator of a node that runs.
pub struct Operator {
    transport: Arc<A2aTransport>,
    deadline_ms: u64,
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Handed {
    /// The id of the handoff: its outcome is told under it.
    pub handoff: WireId,
    /// The result, or why there is none.
    pub result: Result<Artifact, String>,
    /// The value that the first agent gave it.
    pub value: Option<f64>,
}

impl Operator {
    /// The operator of the node that runs from this file.
    pub fn of(spec: &NodeSpec) -> Result<Self, String> {
        let folder = Folder::open(&spec.state_folder()).map_err(|e| format!("the state folder: {e}"))?;
        let address = folder.address().ok_or("the node does not run: start it with relevo serve")?;
        let token = folder.operator_token().map_err(|e| format!("the operator's token: {e}"))?;
        let url = format!("http://{address}").parse().map_err(|e| format!("{address}: {e}"))?;
        let address = PeerAddress {
            url,
            elsewhere: BTreeMap::new(),
            credential: Secret::bearer(&token),
            authority: None,
            certificate: None,
        };
        let limits = ClientLimits::new(spec.wire_limits(), spec.limits.body_bytes_max);
        let peers = BTreeMap::from([(PeerId::OPERATOR, address)]);
        let transport =
            A2aTransport::new(ClientSpec { peers, limits, tap: None, runtime: Handle::current() })
                .map_err(|e| format!("the node cannot be called: {e}"))?;
        Ok(Operator { transport: Arc::new(transport), deadline_ms: spec.time.deadline_ms })
    }

    /// Hand a task to an agent, and wait for what comes back if `waits`. A node that is gone, or is too busy, is asked
    /// again until the time of a task is over: under one id, nothing is done twice.
    pub async fn hand(
        &self,
        wire: WireId,
        agent: &str,
        artifact: &Artifact,
        waits: bool,
    ) -> Result<Handed, String> {
        let deadline = u32::try_from(self.deadline_ms).unwrap_or(u32::MAX >> 1);
        let request = Box::new(wire::handoff(&wire, Some(deadline), &wire.to_string(), artifact));
        let until = Instant::now() + Duration::from_millis(self.deadline_ms);
        let mut load = Load::Handoff { request, passes_value: true };
        let mut pause = Duration::from_millis(5);
        loop {
            let packet = Packet { wire, peer: PeerId::OPERATOR, agent: agent.to_owned(), load: load.clone() };
            let standing = match self.ask(&packet, until).await {
                Report::Standing(standing) => standing,
                other => return Err(said(&other)),
            };
            let Standing { task, progress, value } = standing;
            let value = value.and_then(Result::ok);
            let result = match progress {
                Progress::Completed(artifact) => Ok(artifact),
                Progress::Ended(why) => Err(why.to_owned()),
                Progress::Asks => Err("it asks for something".to_owned()),
                Progress::Working if !waits => Err("working".to_owned()),
                Progress::Working => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK);
                    load = Load::Look { task: task.unwrap_or_default() };
                    continue;
                }
            };
            return Ok(Handed { handoff: wire, result, value });
        }
    }

    /// Say how good the task of a handoff was, in [0, 1].
    pub async fn judge(
        &self,
        message: WireId,
        handoff: WireId,
        agent: &str,
        outcome: f64,
    ) -> Result<(), String> {
        let request = Box::new(wire::outcome(&message, &handoff, None, outcome));
        let load = Load::Outcome { request };
        let packet = Packet { wire: handoff, peer: PeerId::OPERATOR, agent: agent.to_owned(), load };
        match self.ask(&packet, Instant::now() + Duration::from_millis(self.deadline_ms)).await {
            Report::Noted => Ok(()),
            other => Err(said(&other)),
        }
    }

    async fn ask(&self, packet: &Packet, until: Instant) -> Report {
        loop {
            let report = self.transport.exchange(packet).await;
            let pause = match &report {
                Report::Later(ms) => ms.map_or(AGAIN, Duration::from_millis),
                Report::Unreachable(_) => AGAIN,
                _ => return report,
            };
            if Instant::now() + pause > until {
                return report;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn said(report: &Report) -> String {
    match report {
        Report::Refused(word) if word == "unknown-handoff" => {
            "nothing was handed over under this id, or it is too long ago".to_owned()
        }
        Report::Later(_) => {
            "not now: the node is too busy, its disk is full, or the task has not ended; try again".to_owned()
        }
        Report::Refused(word) => format!("refused: {word}"),
        Report::Unreachable(word) => format!("the node cannot be reached: {word}"),
        Report::Garbage(word) => format!("what the node answers cannot be read: {word}"),
        other => format!("the node answers something else than asked: {other:?}"),
    }
}
