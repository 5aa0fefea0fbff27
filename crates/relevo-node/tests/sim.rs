//! Schedules of many seeds, and faults on purpose that they must find.

use relevo_node::sim::{Options, Sabotage, run};

/// `RELEVO_SEEDS=A..B` plays others.
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("RELEVO_SEEDS").ok();
    let given = given.as_ref().and_then(|seeds| seeds.split_once(".."));
    given.and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?)).unwrap_or(0..100)
}

#[test]
fn nothing_is_lost_and_nothing_is_twice() {
    let (mut failed, mut tasks, mut handoffs, mut restarts, mut events) = (vec![], 0, 0, 0, 0);
    for seed in seeds() {
        let run = run(seed, &Options::default(), None);
        (tasks, handoffs, restarts) = (tasks + run.tasks, handoffs + run.handoffs, restarts + run.restarts);
        events += run.events;
        if let Some(first) = run.broken.first() {
            eprintln!("seed {seed}: {first} ({} in all)", run.broken.len());
            failed.push(seed);
        }
    }
    eprintln!("{tasks} tasks, {handoffs} handoffs, {restarts} restarts, {events} events");
    assert!(failed.is_empty(), "seeds {failed:?}");
    assert!(handoffs > 0 && restarts > 0);
}

#[test]
fn a_seed_is_a_schedule() {
    let mut traces = [vec![], vec![]];
    let hashes = traces
        .each_mut()
        .map(|lines| run(4, &Options::default(), Some(&mut |line: &str| lines.push(line.to_owned()))).hash);
    assert_eq!(traces[0], traces[1]);
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(run(4, &Options::default(), None).hash, hashes[0], "looking on changes nothing");
    assert_ne!(run(5, &Options::default(), None).hash, hashes[0]);
}

#[test]
fn every_sabotage_is_found() {
    for sabotage in Sabotage::ALL {
        let options = Options { sabotage: Some(sabotage), ..Options::default() };
        let found = (0..200).find_map(|seed| Some((seed, run(seed, &options, None).broken.first()?.clone())));
        eprintln!("{sabotage:?}: {found:?}");
        assert!(found.is_some(), "{sabotage:?} is not found");
    }
}
