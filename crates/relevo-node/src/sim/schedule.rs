//! One schedule: everything that happens, in the order of simulated time.

mod exchange;

use std::{collections::BTreeMap, sync::atomic::Ordering};

use futures_util::FutureExt;
use relevo::agent::Outcome;
use relevo_core::{
    Rng,
    ids::{AgentId, HandoffId},
};

use super::{
    Run, Trace,
    faults::{Faults, Kind},
    host::Host,
    invariants,
    network::{self, Letter, Reply},
    origin::Origin,
    sabotage::Sabotage,
    world::World,
};
use crate::{
    door::Request,
    ids::{TaskId, WireId},
    machine::{Act, Ids, Input, MachineError},
    store::memory::Fault,
    transport::Packet,
};

/// Between two tasks, in milliseconds.
const TASKS_APART_MS: u32 = 80;
/// Between two looks at the weather, in milliseconds.
const WEATHER_MS: u64 = 1_000;
/// Between two times at which a node lets its store become smaller, in milliseconds.
const TIDY_MS: u64 = 2_000;
/// More than any schedule needs to come to rest, by task.
const EVENTS_MAX: u64 = 20_000;

/// Who sends a packet: a node in one of its lives, or an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Host(usize, u32),
    Origin(usize),
}

enum Event {
    /// A node takes in what has come.
    Turn(usize),
    /// A letter arrives; whose exchange it is, and at which agent.
    Arrives {
        exchange: u64,
        to: usize,
        from: String,
        agent: String,
        letter: Letter,
    },
    /// A reply arrives.
    Comes(u64, Reply),
    /// An agent has done its work.
    Returned {
        host: usize,
        life: u32,
        task: TaskId,
        handoff: HandoffId,
        agent: AgentId,
        outcome: Box<Outcome>,
        ms: u64,
    },
    Rises(usize),
    Origin(usize),
    Weather,
}

/// A packet of which no report has come.
struct Exchange {
    sender: Sender,
    packet: Packet,
}

pub(super) struct Schedule<'s, 't> {
    pub(super) world: World,
    pub(super) hosts: Vec<Host<'s>>,
    pub(super) origins: Vec<Origin>,
    /// Handoffs about whose values a liar may have lied.
    pub(super) lied: Vec<WireId>,
    /// Handoffs that a peer has acknowledged: from whom, to whom.
    pub(super) acknowledged: BTreeMap<WireId, (String, usize)>,
    pub(super) broken: Vec<String>,
    pub(super) outcome_after_ms: u64,
    faults: Faults,
    rng: Rng,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    exchanges: BTreeMap<u64, Exchange>,
    /// Until when nothing goes from one to another.
    cut: BTreeMap<(usize, usize), u64>,
    restarts: usize,
    hasher: blake3::Hasher,
    trace: Trace<'t>,
}

impl<'s, 't> Schedule<'s, 't> {
    pub(super) fn new(
        seed: u64,
        world: World,
        hosts: Vec<Host<'s>>,
        faults: Faults,
        rng: Rng,
        trace: Trace<'t>,
    ) -> Self {
        let outcome_after_ms = hosts[0].spec.outcome_after_ms;
        let (now, next, restarts) = Default::default();
        let mut schedule = Schedule {
            world,
            hosts,
            origins: vec![],
            lied: vec![],
            acknowledged: BTreeMap::new(),
            broken: vec![],
            outcome_after_ms,
            faults,
            rng,
            now,
            queue: BTreeMap::new(),
            next,
            exchanges: BTreeMap::new(),
            cut: BTreeMap::new(),
            restarts,
            hasher: blake3::Hasher::new(),
            trace,
        };
        let faults = schedule.faults.describe();
        let count = schedule.hosts.len();
        schedule.say(|| format!("seed {seed}: {count} organisations, {faults}"));
        schedule
    }

    /// Play it to its end.
    pub(super) fn play(mut self, tasks: usize) -> Run {
        for host in 0..self.hosts.len() {
            self.hosts[host].skew = self.faults.skew();
            self.rise(host);
        }
        let mut at = 0;
        let mut ids = super::host::SimIds(self.rng.fork([1; 3]));
        for number in 0..tasks {
            at += u64::from(self.rng.below(TASKS_APART_MS));
            let host = self.rng.below(self.hosts.len() as u32) as usize;
            let agents = self.world.organisations[host].agents.len() as u32;
            let agent = World::agent_name(host, self.rng.below(agents) as usize);
            let artifact = World::task(&mut self.rng, number);
            let wire = ids.next(super::host::BEGIN_MS + at);
            self.origins.push(Origin::draw(
                &mut self.faults,
                (host, agent),
                wire,
                artifact,
                self.outcome_after_ms,
            ));
            self.at(at, Event::Origin(number));
        }
        self.at(WEATHER_MS, Event::Weather);
        let (over, mut events) = (at + 5_000, 0);
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            if at > over && !self.faults.are_over() {
                self.clear_up();
            }
            self.happen(event);
            events += 1;
            if events > EVENTS_MAX * tasks as u64 {
                self.broken.push("it does not come to rest".to_owned());
            }
            if !self.broken.is_empty() {
                break;
            }
        }
        let handoffs = if self.broken.is_empty() { invariants::check(&mut self) } else { 0 };
        let hash = *self.hasher.finalize().as_bytes();
        Run { hash, broken: self.broken, tasks, handoffs, restarts: self.restarts, events }
    }

    /// Nothing goes wrong from here on.
    fn clear_up(&mut self) {
        self.say(|| "the faults are over".to_owned());
        self.faults.end();
        self.cut.clear();
        self.hosts.iter_mut().for_each(|host| host.full_until = 0);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(host) => {
                if self.hosts[host].turn_at == Some(self.now) {
                    self.hosts[host].turn_at = None;
                    self.turn(host);
                }
            }
            Event::Arrives { exchange, to, from, agent, letter } => {
                self.arrives(exchange, to, &from, &agent, letter);
            }
            Event::Comes(exchange, reply) => self.comes(exchange, reply),
            Event::Returned { host, life, task, handoff, agent, outcome, ms } => {
                if self.hosts[host].life == life {
                    self.hosts[host].inbox.push(Input::Returned {
                        task,
                        handoff,
                        agent,
                        outcome: *outcome,
                        ms,
                    });
                    self.wake(host);
                }
            }
            Event::Rises(host) => {
                if self.hosts[host].machine.is_none() {
                    self.rise(host);
                }
            }
            Event::Origin(number) => {
                if let Some(packet) = self.origins[number].next() {
                    let to = self.origins[number].host;
                    self.carry(Sender::Origin(number), to, packet);
                }
            }
            Event::Weather => self.weather(),
        }
    }

    fn weather(&mut self) {
        let count = self.hosts.len();
        for host in 0..count {
            if self.faults.strikes(Kind::Crash) {
                self.crash(host, "at some time");
            }
            // Rare enough that tasks still end otherwise than by their deadlines.
            if self.faults.below(10) == 0 && self.hosts[host].machine.is_some() {
                let skew = self.faults.skew();
                if skew != 0 {
                    self.say(|| format!("the clock of org{host} is off by {skew} ms from now on"));
                    self.hosts[host].skew = skew;
                    self.wake(host);
                }
            }
            if self.faults.strikes(Kind::Full) {
                self.hosts[host].full_until = self.now + u64::from(self.faults.below(10_000));
            }
            if self.faults.strikes(Kind::Partition) {
                let other = self.faults.below(count as u32) as usize;
                let until = self.now + u64::from(self.faults.below(20_000));
                self.cut.insert((host, other), until);
                if self.faults.below(2) == 0 {
                    self.cut.insert((other, host), until);
                }
                self.say(|| format!("org{host} is cut off from org{other} until {until}"));
            }
        }
        if !self.faults.are_over() {
            self.at(self.now + WEATHER_MS, Event::Weather);
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.queue.insert((at, self.next), event);
        self.next += 1;
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace(&format!("{:>8} {}", self.now, line()));
        }
    }

    /// What happened goes into the hash.
    fn note(&mut self, parts: &[&[u8]]) {
        self.hasher.update(&self.now.to_le_bytes());
        for part in parts {
            self.hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }

    // A node.

    /// Let a node take in what has come, soon.
    fn wake(&mut self, host: usize) {
        if self.hosts[host].machine.is_some() {
            let at = self.now + self.faults.time(3, 2_000, Kind::Slow);
            self.wake_at(host, at);
        }
    }

    fn wake_at(&mut self, host: usize, at: u64) {
        if self.hosts[host].turn_at.is_none_or(|planned| planned > at) {
            self.hosts[host].turn_at = Some(at);
            self.at(at, Event::Turn(host));
        }
    }

    fn turn(&mut self, number: usize) {
        let fault = match self.hosts[number].full_until > self.now {
            true => Some(Fault::Full),
            false => self.faults.of_store(),
        };
        let torn = self.faults.strikes(Kind::TornTurn).then(|| self.faults.below(12));
        let host = &mut self.hosts[number];
        let Some(mut machine) = host.machine.take() else { return };
        host.set_clock(self.now);
        if let Some(fault) = fault {
            host.medium.fail_next(fault);
        }
        let (time, mut acts) = (host.time(self.now), vec![]);
        let inputs: Vec<Input> = std::mem::take(&mut host.inbox).into_iter().chain([Input::Tick]).collect();
        let decide = || {
            for (done, input) in inputs.into_iter().enumerate() {
                let arrives = matches!(input, Input::Asked { request: Request::Handoff { .. }, .. });
                host.saboteur.arrives(arrives);
                machine.handle(time, input, &mut host.ids, &mut acts)?;
                host.saboteur.arrives(false);
                if torn == Some(done as u32) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let decided: Result<bool, MachineError> = decide();
        let acts_first = host.saboteur.what == Some(Sabotage::ActsFirst);
        let early = if acts_first { std::mem::take(&mut acts) } else { vec![] };
        self.perform(number, early);
        match decided {
            Ok(false) => return self.crash(number, "before a commit"),
            Ok(true) => {
                let tidies = self.now >= self.hosts[number].tidy_at;
                let kept = machine.commit().and_then(|()| if tidies { machine.tidy(time) } else { Ok(true) });
                match kept {
                    Ok(true) => {}
                    Ok(false) => self.hosts[number].tidy_at = self.now + TIDY_MS,
                    Err(error) => return self.begin_again(number, error),
                }
            }
            Err(error) => return self.begin_again(number, error),
        }
        let head = acts.len() as u64;
        self.note(&[b"turn", &[number as u8], &head.to_le_bytes()]);
        let due = machine.next_due();
        self.hosts[number].machine = Some(machine);
        match torn {
            // It falls between two acts.
            Some(point) if (point as usize) < acts.len() + 6 => {
                acts.truncate(point.saturating_sub(6) as usize);
                self.perform(number, acts);
                self.crash(number, "after a commit");
            }
            _ => {
                self.perform(number, acts);
                self.wait(number, due);
            }
        }
    }

    fn wait(&mut self, number: usize, due: Option<u64>) {
        if let Some(due) = due {
            let time = self.hosts[number].time(self.now);
            self.wake_at(number, self.now + due.saturating_sub(time));
        }
    }

    fn crash(&mut self, number: usize, when: &str) {
        self.say(|| format!("org{number} crashes {when}"));
        self.note(&[b"crash", &[number as u8]]);
        self.restarts += 1;
        let host = &mut self.hosts[number];
        host.fall();
        host.life += 1;
        host.skew = self.faults.skew();
        let most = if self.faults.below(2) == 0 { 300 } else { 30_000 };
        let at = self.now + u64::from(self.faults.below(most));
        self.at(at, Event::Rises(number));
    }

    /// The store has failed: whoever waits is told to come again, and all goes on from what the store holds. The process
    /// is the same, so that what is on its way to it still comes.
    fn begin_again(&mut self, number: usize, error: MachineError) {
        let MachineError::Store(_) = error else {
            return self.broken.push(format!("org{number}: {error}"));
        };
        self.say(|| format!("org{number} begins again: {error}"));
        self.note(&[b"again", &[number as u8]]);
        self.restarts += 1;
        let tickets = std::mem::take(&mut self.hosts[number].tickets);
        for (_, waiting) in tickets {
            self.answer(number, waiting.exchange, Reply::Later);
        }
        self.hosts[number].machine = None;
        self.hosts[number].turn_at = None;
        self.at(self.now + 100, Event::Rises(number));
    }

    fn rise(&mut self, number: usize) {
        if self.hosts[number].full_until > self.now {
            self.hosts[number].medium.fail_next(Fault::Full);
        }
        match self.hosts[number].rise(self.now) {
            Ok(acts) => {
                self.say(|| format!("org{number} is up"));
                let due = self.hosts[number].machine.as_ref().and_then(|machine| machine.next_due());
                self.perform(number, acts);
                self.wait(number, due);
                self.wake(number);
            }
            Err(MachineError::Store(error)) => {
                self.say(|| format!("org{number} cannot begin: {error}"));
                self.at(self.now + 200, Event::Rises(number));
            }
            Err(error) => self.broken.push(format!("org{number} cannot begin: {error}")),
        }
    }

    fn perform(&mut self, number: usize, acts: Vec<Act<'s>>) {
        for act in acts {
            match act {
                Act::Answer(ticket, answer) => {
                    if let Some(waiting) = self.hosts[number].tickets.remove(&ticket) {
                        let reply = network::write_answer(&waiting.letter, waiting.outcome, answer);
                        self.answer(number, waiting.exchange, reply);
                    }
                }
                Act::Carry(packet) => {
                    let to = self.hosts[number].peers.get(packet.peer.0 as usize);
                    let to = to.and_then(|name| self.hosts.iter().position(|host| host.name == *name));
                    match to {
                        Some(to) => self.carry(Sender::Host(number, self.hosts[number].life), to, packet),
                        None => self.broken.push(format!("org{number} has a packet for nobody: {packet:?}")),
                    }
                }
                Act::Call(task, call) => {
                    let fails = self.faults.strikes(Kind::Failure);
                    self.hosts[number].calls_fail.store(fails, Ordering::Relaxed);
                    let Some(outcome) = call.outcome.now_or_never() else {
                        self.broken.push("an agent is not ready".to_owned());
                        return;
                    };
                    let ms = self.faults.time(60, 20_000, Kind::Slow);
                    let (life, handoff, agent) = (self.hosts[number].life, call.handoff, call.agent);
                    let outcome = Box::new(outcome);
                    self.at(
                        self.now + ms,
                        Event::Returned { host: number, life, task, handoff, agent, outcome, ms },
                    );
                }
                // Nobody waits for a call any more: it may come back all the same.
                Act::Drop(_) | Act::Changed(..) | Act::Ended(..) => {}
                Act::Ask(..) => self.broken.push("a person is asked".to_owned()),
            }
        }
    }
}
