//! As many handoffs as a node may have wait for a peer that never answers, and take no more than little memory each.

mod org;

use std::{fs, net::TcpListener, sync::Arc, thread, time::Duration};

use org::{Org, peer, wire_id};
use relevo::{artifact::Artifact, stage::Stage};
use relevo_node::{
    actor::{Node, Parts},
    door::{Answer, Host, Request},
    ids::PeerId,
    machine::number_peers,
    store::sqlite::SqliteStore,
    transport::a2a::{A2aTransport, ClientLimits, ClientSpec, PeerAddress},
    wire::{self, Incoming},
};
use tokio::{runtime::Runtime, task::JoinSet};

const MANY: usize = 100_000;
/// Bytes that each may take.
const EACH: usize = 2_560;

/// The memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

#[test]
#[ignore = "takes a minute or two, and measures the whole process: run it alone"]
fn a_hundred_thousand_pending_handoffs_take_little_memory_each() {
    // It takes connections, as far as the system does so by itself, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let settings =
        peer("orgb", &url, None, "") + "[time]\ndeadline_ms = 3600000\n[limits]\nopen_max = 200000\n";
    let org = Org::forwarding("orga", &settings);
    let (spec, team) = org.load().unwrap();
    let mut store = SqliteStore::open(&org.path("state")).unwrap();
    let machine = spec.machine();
    let names = number_peers(&mut store, &machine).unwrap();
    let stage = Box::leak(Box::new(Stage::for_node(team, &org.path(""), names).unwrap()));
    let runtime = Runtime::new().unwrap();
    let address = PeerAddress {
        url: url.parse().unwrap(),
        elsewhere: Default::default(),
        credential: None,
        authority: None,
        certificate: None,
    };
    let limits = ClientLimits::new(spec.wire_limits(), spec.limits.body_bytes_max);
    let peers = [(PeerId(1), address)].into();
    let transport =
        A2aTransport::new(ClientSpec { peers, limits, tap: None, runtime: runtime.handle().clone() })
            .unwrap();
    let (node, running) = Node::start(Parts {
        stage,
        spec: machine,
        store: Box::new(store),
        transport: Arc::new(transport),
        runtime: runtime.handle().clone(),
        approvals: org.path("state"),
    })
    .unwrap();

    let hand = |many: usize| {
        let node = node.clone();
        runtime.block_on(async move {
            let mut asked = JoinSet::new();
            for n in 0..many {
                let node = node.clone();
                asked.spawn(async move {
                    let artifact = Artifact { facts: Default::default(), payload: [7; 100][..].into() };
                    let wire = wire_id();
                    let request = wire::handoff(&wire, Some(3_600_000), "context", &artifact);
                    let limits = wire::Limits { payload_bytes_max: 1_000, remembered_ms: 1_000_000 };
                    let incoming = wire::incoming("front", &request, &limits, wire.made_ms());
                    let Ok(Incoming::Handoff(arrival)) = incoming else { panic!("a handoff was due") };
                    let asked = Request::Handoff { agent: "front".to_owned(), arrival };
                    let answer = node.ask(PeerId::OPERATOR, asked).await;
                    assert!(matches!(answer, Answer::Task(_)), "{answer:?}");
                });
                if n % 256 == 255 {
                    while asked.join_next().await.is_some() {}
                }
            }
            while let Some(done) = asked.join_next().await {
                done.unwrap();
            }
        });
    };
    hand(1_000);
    let before = resident();
    hand(MANY);
    let pending = resident();
    // All have been tried again and again by then.
    let mut most = pending;
    for second in 0..40 {
        thread::sleep(Duration::from_secs(1));
        most = most.max(resident());
        println!("{second} s: {} KiB", resident() / 1_024);
    }
    let (each, later) = (pending.saturating_sub(before) / MANY, most.saturating_sub(before) / MANY);
    println!("{each} B for each pending handoff at first, {later} B at most later");
    assert!(later < EACH, "{later} B for each pending handoff");
    drop((silent, node));
    drop(running);
}
