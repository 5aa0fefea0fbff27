//! Whole organisations in simulated time, on one thread: the machine that serves, the codecs of the wire and a store, with a
//! network, disks, clocks and peers that fail as a seed says. Afterwards, what must hold whatever happened is looked at.
//!
//! The same seed is the same schedule, event for event: [`Run::hash`] says so, and a trace tells all of it.

mod faults;
mod host;
mod invariants;
mod network;
mod origin;
mod sabotage;
mod schedule;
mod world;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use relevo::stage::Stage;
use relevo_core::Rng;

pub use sabotage::Sabotage;

use crate::{
    machine::{MachineSpec, PeerSpec, number_peers},
    store::memory::Disk,
};
use faults::Faults;
use host::{BEGIN_MS, Host, Medium, SimIds};
use sabotage::Saboteur;
use schedule::Schedule;
use world::World;

/// A schedule of so many tasks is long: what was learned is measured after it. Every so many-th is.
const LONG: (usize, u64) = (3_000, 100);

/// Where the nodes of a simulation keep what they keep.
#[derive(Clone, Debug, Default)]
pub enum Kept {
    /// In memory, which outlives them, and fails.
    #[default]
    Memory,
    /// In SQLite, each in a folder of its own below this empty one.
    Sqlite(PathBuf),
}

/// How to simulate.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where nodes keep what they keep.
    pub kept: Kept,
    /// What is done wrong on purpose.
    pub sabotage: Option<Sabotage>,
}

/// What came of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// BLAKE3 over all that happened, in order.
    pub hash: [u8; 32],
    /// What must hold, and does not.
    pub broken: Vec<String>,
    /// Tasks that origins handed in.
    pub tasks: usize,
    /// Handoffs between organisations.
    pub handoffs: usize,
    /// Times that a node crashed or had to begin again.
    pub restarts: usize,
    /// Things that happened.
    pub events: u64,
}

/// Told each thing that happens.
pub type Trace<'t> = Option<&'t mut dyn FnMut(&str)>;

/// Play the schedule of a seed to its end, and look whether all that must hold does.
pub fn run(seed: u64, options: &Options, trace: Trace<'_>) -> Run {
    let is_long = seed % LONG.1 == LONG.1 - 1;
    let mut rng = Rng::stream(seed, "world");
    let world = World::draw(&mut rng, is_long);
    let faults = Faults::draw(seed, is_long);
    let tasks = if is_long { LONG.0 } else { 40 + rng.below(101) as usize };
    match set_up(seed, options, &world, tasks, &mut rng) {
        Ok(sites) => {
            let hosts = sites.iter().map(|site| site.host(seed, options)).collect();
            Schedule::new(seed, world, hosts, faults, rng, trace).play(tasks)
        }
        Err(broken) => {
            Run { hash: [0; 32], broken: vec![broken], tasks: 0, handoffs: 0, restarts: 0, events: 0 }
        }
    }
}

/// What outlives the nodes of an organisation.
struct Site {
    spec: MachineSpec,
    stage: Stage,
    peers: Vec<String>,
    medium: Medium,
    clock: Arc<AtomicU64>,
    calls_fail: Arc<AtomicBool>,
}

impl Site {
    fn host<'s>(&'s self, seed: u64, options: &Options) -> Host<'s> {
        Host {
            name: self.spec.name.clone(),
            stage: &self.stage,
            spec: self.spec.clone(),
            peers: self.peers.clone(),
            medium: self.medium.clone(),
            saboteur: Saboteur::new(options.sabotage),
            machine: None,
            life: 0,
            clock: self.clock.clone(),
            calls_fail: self.calls_fail.clone(),
            skew: 0,
            ids: SimIds(Rng::stream(seed, &format!("ids/{}", self.spec.name))),
            inbox: vec![],
            turn_at: None,
            tickets: Default::default(),
            next_ticket: 0,
            shown: Default::default(),
            full_until: 0,
            tidy_at: 0,
        }
    }
}

fn set_up(
    seed: u64,
    options: &Options,
    world: &World,
    tasks: usize,
    rng: &mut Rng,
) -> Result<Vec<Site>, String> {
    let outcome_after_ms = 20_000 + u64::from(rng.below(20_000));
    let poll_ms = 500 + u64::from(rng.below(5_000));
    let tight = rng.below(8) == 0 && !world.is_long;
    let open_max = if tight { 4 } else { 100_000 };
    let mut sites = vec![];
    for (own, organisation) in world.organisations.iter().enumerate() {
        let others = world.organisations.iter().filter(|other| other.name != organisation.name);
        let peer = |name: &String| PeerSpec { name: name.clone(), open_max, ..PeerSpec::default() };
        let spec = MachineSpec {
            name: organisation.name.clone(),
            seed,
            horizon: 2 * tasks as u64,
            deadline_ms: 60_000,
            outcome_after_ms,
            poll_ms,
            remember_ms: network::LIMITS.remembered_ms,
            open_max,
            wire: network::LIMITS,
            snapshot_entries: 100 + u64::from(rng.below(4_000)),
            peers: others.map(|other| (other.name.clone(), peer(&other.name))).collect(),
        };
        let medium = match &options.kept {
            Kept::Memory => Medium::Memory(Disk::default()),
            Kept::Sqlite(folder) => Medium::Sqlite(folder.join(&organisation.name)),
        };
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", organisation.name);
        let mut store = medium.open().map_err(|e| fail(&e))?;
        let peers = number_peers(&mut *store, &spec).map_err(|e| fail(&e))?;
        let clock = Arc::new(AtomicU64::new(BEGIN_MS));
        let calls_fail = Arc::new(AtomicBool::new(false));
        let stage = world.stage(own, peers.clone(), clock.clone(), &calls_fail).map_err(|e| fail(&e))?;
        sites.push(Site { spec, stage, peers, medium, clock, calls_fail });
    }
    Ok(sites)
}
