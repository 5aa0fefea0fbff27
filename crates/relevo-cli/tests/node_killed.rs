//! Three organisations hand work to each other while one or another of their processes is killed, again and again.
//! Nothing that was acknowledged is lost, nothing is done or learned twice, and every ledger can be replayed.
//!
//! `RELEVO_KILLS=1000` kills that often.

mod orgs;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use orgs::{ORGS, Orgs, new_id, pending, until};
use relevo::artifact::Artifact;
use relevo_core::{
    Rng,
    record::{Entry, Record, Table, Way},
};
use relevo_node::{ids::WireId, operator::Operator};

const KILLS: usize = 200;

/// The longest time between two kills, in milliseconds: about twice what a start takes.
const PAUSE_MS: u32 = 250;

/// How many tasks there are at a time.
const JOBS: u64 = 24;

/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_secs(80);

const SETTINGS: &str = "[time]\ndeadline_ms = 10_000\noutcome_after = 8\npoll_ms = 100\n";

/// What the operator was told of a task: the result, or why there is none; nothing, where it did not wait for that.
type Told = Option<Result<Vec<u8>, String>>;

#[test]
fn nothing_is_lost_or_done_twice_whoever_is_killed() {
    let kills = std::env::var("RELEVO_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let orgs = Orgs::new(SETTINGS);
    orgs.tasks(8);
    let mut nodes = orgs.start_all();
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let told = thread::scope(|scope| {
        let load = scope.spawn(|| load(&orgs, &stop));
        let mut rng = Rng::stream(7, "kills");
        for kill in 0..kills {
            thread::sleep(Duration::from_millis(rng.below(PAUSE_MS).into()));
            let which = rng.below(3) as usize;
            let org = ORGS[which];
            let ended = nodes[which].0.try_wait().unwrap();
            assert_eq!(ended, None, "before kill {kill}, {org}: {}", orgs.place.read(&format!("{org}/log")));
            nodes[which].0.kill().unwrap();
            nodes[which].0.wait().unwrap();
            nodes[which] = orgs.spawn(org);
        }
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    println!("{kills} kills, {} tasks in {:?}", told.len(), began.elapsed());
    assert!(told.len() > kills / 10, "only {} tasks were taken", told.len());

    let ended = ask_again(&orgs, &told);
    let completed = ended.values().filter(|result| result.is_ok()).count();
    println!("{completed} of them brought a result");
    assert!(4 * completed > told.len(), "only {completed} of {} brought a result: {ended:?}", told.len());

    let (mut left, patience) = (vec![], Instant::now());
    until("the end of all that was begun", || {
        left = ORGS.iter().flat_map(|org| pending(&orgs.ledger(org))).collect();
        left.is_empty() || patience.elapsed() > PATIENCE
    });
    assert!(left.is_empty(), "{left:#?}");
    for node in nodes {
        assert_eq!(node.stop().code(), Some(0));
    }
    for org in ORGS {
        orgs.place.data(&format!("ledger verify {org}/node.toml"));
    }
    let ledgers = ORGS.map(|org| (org, orgs.ledger(org)));
    for (org, ledger) in &ledgers {
        learned_once(org, ledger);
    }
    crossed_once(&BTreeMap::from(ledgers), told.keys());
    println!("{:?} in all", began.elapsed());
}

/// Hand over tasks until it stops, as the operator of the first; those that were acknowledged.
fn load(orgs: &Orgs, stop: &AtomicBool) -> BTreeMap<WireId, Told> {
    let payloads: Vec<Vec<u8>> =
        (0..8).map(|i| fs::read(orgs.place.path(&format!("files/{i}"))).unwrap()).collect();
    let work = async |job: u64, operator: &Operator| {
        let (mut rng, mut told) = (Rng::stream(job, "ids"), BTreeMap::new());
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let (handoff, message, waits) = (new_id(&mut rng), new_id(&mut rng), number % 4 != 0);
            let payload = payloads[(job as usize + number) % payloads.len()].clone();
            let artifact = Artifact { facts: Default::default(), payload: payload.into() };
            match operator.hand(handoff, "front", &artifact, waits).await {
                Ok(handed) => {
                    let result = handed.result.map(|artifact| artifact.payload.to_vec());
                    if let Ok(text) = &result {
                        let quality = f64::from(u8::from(text.starts_with(b"Order ")));
                        // Where that cannot be told in time, nothing is learned from it.
                        let _ = operator.judge(message, handoff, "front", quality).await;
                    }
                    let is_open = result.as_ref().is_err_and(|why| why == "working");
                    told.insert(handoff, (!is_open).then_some(result));
                }
                Err(e) => assert!(e.starts_with("the node cannot "), "{e}"),
            }
        }
        told
    };
    orgs.as_operator("orga", async |operator| {
        let jobs = (0..JOBS).map(|job| work(job, operator));
        futures_util::future::join_all(jobs).await.into_iter().flatten().collect()
    })
}

/// Every task that was acknowledged has ended, as was told before.
fn ask_again(orgs: &Orgs, told: &BTreeMap<WireId, Told>) -> BTreeMap<WireId, Result<Vec<u8>, String>> {
    let payloads: Vec<Vec<u8>> =
        (0..8).map(|i| fs::read(orgs.place.path(&format!("files/{i}"))).unwrap()).collect();
    orgs.as_operator("orga", async |operator| {
        let mut ended = BTreeMap::new();
        for (handoff, before) in told {
            // The id alone does not say which payload it was.
            let mut result = Err("refused: id-reused".to_owned());
            for payload in &payloads {
                let artifact = Artifact { facts: Default::default(), payload: payload.clone().into() };
                result = operator.hand(*handoff, "front", &artifact, true).await;
                if result != Err("refused: id-reused".to_owned()) {
                    break;
                }
            }
            let result = result.unwrap().result.map(|artifact| artifact.payload.to_vec());
            assert!(before.as_ref().is_none_or(|before| *before == result), "{before:?}, then {result:?}");
            ended.insert(*handoff, result);
        }
        ended
    })
}

/// Every choice was learned from once, or given up once, and not both; every task came in once.
fn learned_once(org: &str, ledger: &[Entry]) {
    let (mut ended, mut received) = (BTreeSet::new(), BTreeSet::new());
    for Entry { agent, record } in ledger {
        let is_new = match record {
            Record::Settled { handoff, table: Table::Successors, .. } | Record::Expired { handoff } => {
                ended.insert((agent, handoff))
            }
            Record::Received { handoff, .. } => received.insert((agent, handoff.id)),
            _ => true,
        };
        assert!(is_new, "{org}: twice: {record:?}");
    }
}

/// What came in at one went out at another; what was learned from, and what was acknowledged, came in; all of it once.
fn crossed_once<'t>(ledgers: &BTreeMap<&str, Vec<Entry>>, acknowledged: impl Iterator<Item = &'t WireId>) {
    let mut crossed = BTreeMap::new();
    for (org, ledger) in ledgers {
        for Entry { record, .. } in ledger {
            if let Record::Crossed { handoff, wire, peer, way } = record {
                let (from, to) = match way {
                    Way::Out => (*org, peer.as_str()),
                    Way::In => (peer.as_str(), *org),
                };
                let twice = crossed.insert((*way, from, to, *wire), *handoff);
                assert_eq!(twice, None, "{org}: {record:?}");
            }
        }
    }
    for handoff in acknowledged {
        assert!(crossed.contains_key(&(Way::In, "operator", "orga", handoff.bytes())), "{handoff} was lost");
    }
    let mut counts = [0; 2];
    for ((way, from, to, wire), handoff) in &crossed {
        match way {
            Way::In if *from != "operator" => {
                counts[0] += 1;
                assert!(
                    crossed.contains_key(&(Way::Out, *from, *to, *wire)),
                    "{from} sent nothing like it to {to}"
                );
            }
            Way::In => {}
            Way::Out => {
                let is_told = |record: &Record| matches!(record, Record::Valued { message } if message.handoff == *handoff);
                if ledgers[from].iter().any(|entry| is_told(&entry.record)) {
                    counts[1] += 1;
                    assert!(
                        crossed.contains_key(&(Way::In, *from, *to, *wire)),
                        "{to} told of what it never had"
                    );
                }
            }
        }
    }
    println!("{} handoffs came in, {} were learned from", counts[0], counts[1]);
    assert!(counts.iter().all(|count| *count > 0));
}
