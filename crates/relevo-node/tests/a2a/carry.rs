//! What is carried to others: a node's client at a node's door, in both bindings.

use std::{collections::BTreeMap, sync::Arc};

use relevo::artifact::Artifact;
use relevo_node::{
    ids::{PeerId, TaskId, WireId},
    transport::{
        Load, Packet, Report,
        a2a::{A2aTransport, ClientLimits, ClientSpec, PeerAddress, Secret},
    },
    wire::{self, Progress},
};
use tokio::runtime::Handle;

use crate::host::{A, B, LIMITS, START_MS, Served, terms};

pub(crate) const CLIENT_LIMITS: ClientLimits = ClientLimits {
    wire: LIMITS.wire,
    reply_bytes_max: 16_384,
    connect_ms_max: 1_000,
    reply_ms_max: 10_000,
    carried_max: 64,
};

pub(crate) fn client(peers: BTreeMap<PeerId, PeerAddress>, limits: ClientLimits) -> Arc<A2aTransport> {
    Arc::new(A2aTransport::new(ClientSpec { peers, limits, tap: None, runtime: Handle::current() }).unwrap())
}

pub(crate) fn address(url: &str, token: &str) -> PeerAddress {
    PeerAddress {
        url: url.parse().unwrap(),
        elsewhere: BTreeMap::new(),
        credential: Secret::bearer(token),
        authority: None,
        certificate: None,
    }
}

pub(crate) fn wire_id(n: u8) -> WireId {
    WireId::new(START_MS, &[n; 10])
}

pub(crate) fn handoff(wire: WireId, peer: PeerId, agent: &str) -> Packet {
    let artifact = Artifact { facts: Default::default(), payload: b"payload"[..].into() };
    let request = Box::new(wire::handoff(&wire, Some(60_000), "context", &artifact));
    Packet { wire, peer, agent: agent.to_owned(), load: Load::Handoff { request, passes_value: true } }
}

fn with(packet: &Packet, load: Load) -> Packet {
    Packet { load, ..packet.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_is_carried_looked_at_and_its_outcome_told_in_both_bindings() {
    let served = Served::start(LIMITS, 1e6).await;
    for binding in ["JSON-RPC", "HTTP+JSON"] {
        let is_rest = binding != "JSON-RPC";
        let mut peer = address(&served.url, "token-a");
        if is_rest {
            let cards =
                ["echo", "slow"].map(|name| (name.to_owned(), served.rest_card(name).parse().unwrap()));
            peer.elsewhere.extend(cards);
        }
        let client = client([(A, peer)].into(), CLIENT_LIMITS);

        let sent = handoff(wire_id(if is_rest { 2 } else { 1 }), A, "echo");
        assert_eq!(
            client.exchange(&with(&sent, Load::Card)).await,
            Report::Card(Ok(Some(terms()))),
            "{binding}"
        );
        let Report::Standing(standing) = client.exchange(&sent).await else {
            panic!("{binding}: a task was due")
        };
        assert_eq!(standing.value, Some(Ok(0.25)), "{binding}: V comes with the first answer");
        let Progress::Completed(result) = &standing.progress else { panic!("{binding}: {standing:?}") };
        assert_eq!(&*result.payload, b"payload", "{binding}");

        let task = standing.task.clone().unwrap();
        let looked = client.exchange(&with(&sent, Load::Look { task: task.clone() })).await;
        assert_eq!(looked, Report::Standing(standing), "{binding}: looked at, it stands the same");
        let never = client.exchange(&with(&sent, Load::Look { task: "a/b?c".to_owned() })).await;
        assert_eq!(never, Report::Refused("not-found".to_owned()), "{binding}");
        let request = Box::new(wire::outcome(&wire_id(9), &sent.wire, Some(&task), 0.75));
        let told = client.exchange(&with(&sent, Load::Outcome { request })).await;
        assert_eq!(told, Report::Noted, "{binding}");
        assert_eq!(served.host.outcomes().last(), Some(&(sent.wire, 0.75)), "{binding}");

        let slow = handoff(wire_id(if is_rest { 4 } else { 3 }), A, "slow");
        let Report::Standing(begun) = client.exchange(&slow).await else {
            panic!("{binding}: a task was due")
        };
        assert_eq!(begun.progress, Progress::Working, "{binding}: no waiting for the end");
        let task = begun.task.unwrap();
        assert!(TaskId::parse(&task).is_some());
        let Report::Standing(ended) = client.exchange(&with(&slow, Load::Cancel { task })).await else {
            panic!("{binding}: a task was due")
        };
        assert_eq!(ended.progress, Progress::Ended("canceled"), "{binding}");
        let declared = client.exchange(&with(&slow, Load::Card)).await;
        assert_eq!(declared, Report::Card(Ok(None)), "{binding}: it declares nothing");
    }
    assert!(served.host.tasks_of(A).len() == 4 && served.host.tasks_of(B).is_empty());
    served.stop().await;
}
