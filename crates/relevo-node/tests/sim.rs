//! Schedules of many seeds, and faults on purpose that they must find.

use std::{
    fs,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use relevo_node::sim::{Kept, Options, Run, Sabotage, run};
use tempfile::TempDir;

/// Play these, several at a time.
fn play(seeds: Range<u64>, run: impl Fn(u64) -> Run + Sync) -> Vec<(u64, Run)> {
    let (next, runs) = (AtomicU64::new(seeds.start), Mutex::new(vec![]));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let run = run(seed);
            run.broken.iter().for_each(|broken| eprintln!("relevo sim --seed {seed}: {broken}"));
            runs.lock().unwrap().push((seed, run));
        }
    };
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    runs.into_inner().unwrap()
}

/// Nothing is broken, and something has happened.
fn check(runs: &[(u64, Run)]) {
    let sum = |of: fn(&Run) -> usize| runs.iter().map(|(_, run)| of(run)).sum::<usize>();
    let broken: Vec<u64> =
        runs.iter().filter(|(_, run)| !run.broken.is_empty()).map(|(seed, _)| *seed).collect();
    let (tasks, handoffs, restarts) =
        (sum(|run| run.tasks), sum(|run| run.handoffs), sum(|run| run.restarts));
    eprintln!("{tasks} tasks, {handoffs} handoffs, {restarts} restarts");
    assert!(broken.is_empty(), "seeds {broken:?}");
    assert!(handoffs > tasks / 2 && restarts > runs.len());
}

/// `RELEVO_SEEDS=A..B` plays others; seed 99 is a long one, of which what was learned is measured.
#[test]
fn nothing_is_lost_and_nothing_is_twice() {
    let given = std::env::var("RELEVO_SEEDS").ok();
    let given = given.as_ref().and_then(|seeds| seeds.split_once(".."));
    let given = given.and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    check(&play(given.unwrap_or(0..100), |seed| run(seed, &Options::default(), None)));
}

#[test]
fn a_database_keeps_as_much() {
    let archived = AtomicU64::new(0);
    check(&play(0..6, |seed| {
        let folder = TempDir::new().unwrap();
        let kept = Kept::Sqlite(folder.path().to_owned());
        let run = run(seed, &Options { kept, ..Options::default() }, None);
        let states = fs::read_dir(folder.path()).unwrap().map(|state| state.unwrap().path());
        archived.fetch_add(
            states.filter(|state| state.join("archive").exists()).count() as u64,
            Ordering::Relaxed,
        );
        run
    }));
    assert!(archived.into_inner() > 0, "nothing was put away");
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
