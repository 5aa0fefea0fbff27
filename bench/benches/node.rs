//! A node in process, its store on the disk of the working directory, every commit synced: handoffs a second and how long each
//! takes, what stands in the ledger for one, and how long a restart takes. What carries packets answers at once, so that
//! neither a network nor a peer is measured.
//!
//! `-- restart` measures only what has 10^6 handoffs behind it. The limit is printed beside: how often a second the same disk syncs an append of as many bytes.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use relevo::{artifact::Artifact, stage::Stage, team::TeamSpec};
use relevo_bench::met;
use relevo_core::units::Bounds;
use relevo_node::{
    actor::{Node, Parts},
    door::{Answer, Host, Request},
    ids::{PeerId, WireId},
    machine::{MachineSpec, PeerSpec, number_peers},
    store::{
        TaskState,
        sqlite::{SqliteReader, SqliteStore},
    },
    transport::{Load, Packet, Report, Reporter, Transport},
    wire::{Arrival, Emit, Limits, OutcomeNote, Progress, Standing, TauUnit, Terms},
};
use tokio::{runtime::Runtime, sync::Semaphore, task::JoinSet};

/// Two agents that decide and hand on: one ends tasks here, the other hands them to a peer.
const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "bench"
start = "ends"

[learner]
decides = "before"
values = [-1.0, 1.0]

[[agents]]
name = "ends"
forwards = true
observes = ["kind"]
handoffs = ["finish"]

[[agents]]
name = "hands"
forwards = true
observes = ["kind"]
handoffs = ["there"]

[[agents]]
name = "there"
remote = "peer/there"
"#;

/// A peer in whose place answers come at once.
struct Echo;

impl Transport for Echo {
    fn carry(self: Arc<Self>, packet: Packet, report: Reporter) {
        report(match packet.load {
            Load::Card => Report::Card(Ok(Some(Terms {
                bounds: Bounds::new(-1.0, 1.0).unwrap(),
                discount: 0.95,
                tau_unit: TauUnit::Call,
                emit: Emit::Activation,
            }))),
            Load::Handoff { .. } | Load::Look { .. } | Load::Cancel { .. } => Report::Standing(Standing {
                task: Some("t".to_owned()),
                progress: Progress::Completed(Artifact::default()),
                value: Some(Ok(0.5)),
            }),
            Load::Outcome { .. } => Report::Noted,
        });
    }
}

fn spec(snapshot_entries: u64) -> MachineSpec {
    let peer = PeerSpec { name: "peer".into(), may_hand_to: None, facts: None, open_max: 1_000_000 };
    MachineSpec {
        name: "bench".into(),
        seed: 1,
        horizon: 1_000_000,
        deadline_ms: 600_000,
        outcome_after_ms: 600_000,
        poll_ms: 1_000,
        remember_ms: 86_400_000,
        open_max: 1_000_000,
        snapshot_entries,
        wire: Limits { payload_bytes_max: 1 << 20, remembered_ms: u64::MAX },
        peers: [("peer".to_owned(), peer)].into(),
    }
}

fn stage(names: Vec<String>) -> &'static Stage {
    let team = TeamSpec::parse(TEAM).unwrap();
    Box::leak(Box::new(Stage::for_node(team, Path::new("."), names).unwrap()))
}

fn open(folder: &Path, snapshot_entries: u64, runtime: &Runtime) -> (Arc<Node>, relevo_node::actor::Running) {
    let mut store = SqliteStore::open(folder).unwrap();
    let names = number_peers(&mut store, &spec(snapshot_entries)).unwrap();
    Node::start(Parts {
        stage: stage(names),
        spec: spec(snapshot_entries),
        store: Box::new(store),
        transport: Arc::new(Echo),
        runtime: runtime.handle().clone(),
        approvals: folder.to_owned(),
    })
    .unwrap()
}

fn id(n: u64) -> WireId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    WireId::new(1_700_000_000_000, &random)
}

/// Hand `count` tasks in, at most `at_a_time` unanswered, and tell the outcome of each; the times of answers to handoffs.
async fn hand(node: &Arc<Node>, agent: &str, from: u64, count: u64, at_a_time: usize) -> Vec<Duration> {
    let (places, mut working) = (Arc::new(Semaphore::new(at_a_time)), JoinSet::new());
    let mut times = Vec::with_capacity(count as usize);
    for n in from..from + count {
        let place = places.clone().acquire_owned().await.unwrap();
        let (node, agent) = (node.clone(), agent.to_owned());
        working.spawn(async move {
            let artifact = Artifact { facts: Default::default(), payload: vec![7; 200].into() };
            let arrival = Arrival {
                message: id(n).to_string(),
                deadline_ms: Some(600_000),
                context: None,
                digest: *blake3::hash(&n.to_le_bytes()).as_bytes(),
                artifact,
            };
            let began = Instant::now();
            let request = Request::Handoff { agent, arrival };
            let Answer::Task(row) = node.ask(PeerId::OPERATOR, request).await else { panic!("refused") };
            let took = began.elapsed();
            let mut news = node.watch(PeerId::OPERATOR, row.id);
            while node.task(PeerId::OPERATOR, row.id).await.unwrap().unwrap().state == TaskState::Working {
                let _ = tokio::time::timeout(Duration::from_millis(50), news.changed()).await;
            }
            let note = OutcomeNote { handoff: id(n), outcome: 1.0, is_clamped: false };
            let Answer::Noted = node.ask(PeerId::OPERATOR, Request::Outcome(note)).await else {
                panic!("refused")
            };
            drop(place);
            took
        });
        while let Some(took) = working.try_join_next() {
            times.push(took.unwrap());
        }
    }
    while let Some(took) = working.join_next().await {
        times.push(took.unwrap());
    }
    times
}

/// How often a second this disk syncs an append of so many bytes.
fn syncs(folder: &Path, bytes: usize) -> f64 {
    let mut file: File = OpenOptions::new().create(true).append(true).open(folder.join("syncs")).unwrap();
    let (block, began) = (vec![7; bytes], Instant::now());
    let mut done = 0;
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&block).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

fn quantile(times: &mut [Duration], q: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3
}

fn main() {
    let place = tempfile::tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let synced = syncs(place.path(), 64 << 10);
    println!("limit: {synced:.0} syncs of 64 KiB a second");
    let only_restart = std::env::args().any(|argument| argument == "restart");
    for (agent, what) in
        [("ends", "taken, decided, finished, judged"), ("hands", "handed on, valued, returned, judged")]
    {
        for at_a_time in [1, 16, 24, 32, 64, 512, 4096].into_iter().filter(|_| !only_restart) {
            let folder = tempfile::tempdir_in(".").unwrap();
            let (node, running) = open(folder.path(), u64::MAX, &runtime);
            let count = if at_a_time == 1 { 2_000 } else { 40_000 };
            runtime.block_on(hand(&node, agent, 0, count / 10, at_a_time));
            let began = Instant::now();
            let mut times = runtime.block_on(hand(&node, agent, count, count, at_a_time));
            let rate = count as f64 / began.elapsed().as_secs_f64();
            node.stop();
            drop(node);
            running.join().unwrap().unwrap();
            let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
            println!(
                "{what}, {at_a_time:>4} at a time: {rate:>6.0}/s ({:.1} a sync at the limit), answered in p50 {p50:.2} ms, \
                 p99 {p99:.2} ms",
                rate / synced,
            );
        }
    }
    let folder = tempfile::tempdir_in(".").unwrap();
    let (node, running) = open(folder.path(), 1_000_000, &runtime);
    // Almost as many entries lie behind the last snapshot as may.
    let handoffs = 1_190_000;
    runtime.block_on(hand(&node, "ends", 0, handoffs, 4096));
    node.stop();
    drop(node);
    running.join().unwrap().unwrap();
    let mut bytes = 0;
    let mut kept = SqliteReader::open(folder.path()).unwrap();
    let walked = kept.whole_ledger(&mut |entries| {
        bytes += entries.len() as u64;
        Ok(())
    });
    walked.unwrap();
    drop(kept);
    let file = std::fs::metadata(folder.path().join("node.db")).unwrap().len();
    println!(
        "ledger: {:.0} bytes a handoff; the whole database {:.0}",
        bytes as f64 / handoffs as f64,
        file as f64 / handoffs as f64
    );
    let began = Instant::now();
    let (node, running) = open(folder.path(), 1_000_000, &runtime);
    let took = began.elapsed().as_secs_f64();
    println!("restart after {handoffs} handoffs: {took:.2} s {}", met(took < 2.0));
    node.stop();
    drop(node);
    running.join().unwrap().unwrap();
}
