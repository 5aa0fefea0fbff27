//! A machine by itself: what happens goes in, what is to be done comes out.

use std::path::Path;

use relevo::{artifact::Artifact, stage::Stage, team::TeamSpec};
use relevo_node::{
    door::Request,
    ids::{PeerId, WireId},
    machine::{Act, Ids, Input, Machine, MachineSpec, PeerSpec, number_peers},
    store::memory::{Disk, MemoryStore},
    transport::{Load, Report},
    wire::{Arrival, Limits},
};

/// One agent that hands everything to a peer.
const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "passes-on"
start = "here"

[learner]
decides = "before"

[[agents]]
name = "here"
forwards = true
observes = ["kind"]
handoffs = ["there"]

[[agents]]
name = "there"
remote = "peer/there"
"#;

const HOUR_MS: u64 = 3_600_000;

struct Counting(u64);

impl Ids for Counting {
    fn next(&mut self, now_ms: u64) -> WireId {
        self.0 += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.0.to_be_bytes());
        WireId::new(now_ms, &random)
    }
}

fn spec() -> MachineSpec {
    let peer = PeerSpec { name: "peer".into(), open_max: 100, ..PeerSpec::default() };
    MachineSpec {
        name: "test".into(),
        seed: 1,
        horizon: 100,
        deadline_ms: HOUR_MS,
        outcome_after_ms: HOUR_MS,
        poll_ms: 1_000,
        remember_ms: 24 * HOUR_MS,
        open_max: 100,
        snapshot_entries: 1_000_000,
        wire: Limits { payload_bytes_max: 4096, remembered_ms: 24 * HOUR_MS },
        peers: [("peer".to_owned(), peer)].into(),
    }
}

#[test]
fn a_clock_that_is_set_back_keeps_nothing_waiting() {
    let disk = Disk::default();
    let names = number_peers(&mut MemoryStore::open(&disk), &spec()).unwrap();
    let team = TeamSpec::parse(TEAM).unwrap();
    let stage = Stage::for_node(team, Path::new("."), names).unwrap();
    let (mut now, mut ids, mut acts) = (1_767_225_600_000, Counting(0), vec![]);
    let store = Box::new(MemoryStore::open(&disk));
    let mut machine = Machine::recover(&stage, spec(), store, now, &mut ids, &mut acts).unwrap();

    let arrival = Arrival {
        message: ids.next(now).to_string(),
        deadline_ms: Some(600_000),
        context: None,
        digest: [7; 32],
        artifact: Artifact::default(),
    };
    let request = Request::Handoff { agent: "here".into(), arrival };
    let asked = Input::Asked { ticket: 0, peer: PeerId::OPERATOR, request };
    machine.handle(now, asked, &mut ids, &mut acts).unwrap();
    machine.commit().unwrap();
    let carried = |acts: &mut Vec<Act<'_>>| {
        acts.drain(..).find_map(|act| match act {
            Act::Carry(packet) => Some(packet),
            _ => None,
        })
    };
    let packet = carried(&mut acts).expect("the card of the peer's agent is asked for");
    assert!(matches!(packet.load, Load::Card));
    let nobody = || Report::Unreachable("no-connection".into());
    machine
        .handle(now, Input::Reported { wire: packet.wire, report: nobody() }, &mut ids, &mut acts)
        .unwrap();
    machine.handle(now, Input::Tick, &mut ids, &mut acts).unwrap();
    assert!(carried(&mut acts).is_none(), "not at once");

    now -= HOUR_MS;
    machine.handle(now, Input::Tick, &mut ids, &mut acts).unwrap();
    let again = carried(&mut acts).expect("an hour is not waited for");
    assert_eq!(again.wire, packet.wire);
    // What was on its way comes back; only then is anything said again.
    machine.handle(now - HOUR_MS, Input::Tick, &mut ids, &mut acts).unwrap();
    assert!(carried(&mut acts).is_none());
    machine.handle(now, Input::Reported { wire: again.wire, report: nobody() }, &mut ids, &mut acts).unwrap();
    let due = machine.next_due().unwrap();
    assert!((now + 200..now + 2_000).contains(&due), "{due} at {now}");
}
