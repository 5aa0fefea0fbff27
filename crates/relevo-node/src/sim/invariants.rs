//! What must hold after every schedule, once all has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use relevo::{episode::Crew, stage::Stage};
use relevo_core::{
    ids::{AgentId, EpisodeId, HandoffId, OperationId},
    protocol::Handoff,
    record::{Entry, EntryDecoder, Record, Table, Way},
    replay::Replay,
};

use super::{host::Host, origin::End, schedule::Schedule, world};
use crate::{
    ids::{PeerId, TaskId, WireId},
    machine::{Held, Machine},
    store::{Closing, Filter, MadeRow, StoreError, TaskRow, TaskState},
};

/// How far what was learned may fall short of what is best, after a long schedule.
const REGRET_MAX: f64 = 0.05;
const ROWS_MAX: usize = 1_000_000;

/// All that a node has kept.
#[derive(Default)]
struct Book {
    entries: Vec<Entry>,
    tasks: BTreeMap<(PeerId, TaskId), TaskRow>,
    made: BTreeMap<WireId, MadeRow>,
    /// Who of its agents a task came to, in order.
    path: BTreeMap<EpisodeId, Vec<Handoff>>,
    /// Which operation was chosen, where there are several.
    operations: BTreeMap<HandoffId, OperationId>,
    /// Where a call failed, and nothing was done to the task.
    failed: BTreeSet<HandoffId>,
    /// Choices of successors, by the handoff that follows from them, with the one that led to them.
    decided: Vec<(HandoffId, HandoffId)>,
    settled: BTreeMap<(AgentId, HandoffId), usize>,
    /// By whoever made it, and by whoever was at work in it.
    expired: BTreeMap<(AgentId, HandoffId), usize>,
    censored: BTreeMap<HandoffId, usize>,
    finished: BTreeMap<HandoffId, Vec<f64>>,
    valued: BTreeMap<HandoffId, f64>,
    came: BTreeMap<(String, [u8; 16]), usize>,
    went: BTreeMap<EpisodeId, Vec<WireId>>,
}

/// Look at everything, and say what is broken; how many handoffs went from one organisation to another.
pub(super) fn check(schedule: &mut Schedule<'_, '_>) -> usize {
    let mut broken = vec![];
    let (mut books, mut crews) = (vec![], vec![]);
    for host in &mut schedule.hosts {
        let name = host.name.clone();
        let Some(machine) = host.machine.take() else {
            broken.push(format!("{name} is down"));
            continue;
        };
        if machine.held() != Held::default() {
            broken.push(format!("{name} holds {:?} at rest", machine.held()));
        }
        let crew = machine.crew().clone();
        drop(machine);
        match read(host) {
            Ok(book) => {
                learned(host, &book, &crew, &mut broken);
                book.check(&name, &mut broken);
                books.push(book);
                crews.push((host.stage, crew));
            }
            Err(e) => broken.push(format!("{name}: {e}")),
        }
    }
    if books.len() == schedule.hosts.len() {
        let all = All { schedule, books: &books };
        all.handoffs(&mut broken);
        all.owners(&mut broken);
        if schedule.world.is_long {
            let crews: Vec<(&Stage, &Crew)> = crews.iter().map(|(stage, crew)| (*stage, crew)).collect();
            let regret = schedule.world.regret(&crews);
            if regret > REGRET_MAX {
                broken.push(format!("what was learned falls short of what is best by {regret:.3}"));
            }
        }
    }
    schedule.broken.append(&mut broken);
    books.iter().map(|book| book.made.len()).sum()
}

/// Read all that a node has kept; its chain is verified on the way.
fn read(host: &Host<'_>) -> Result<Book, StoreError> {
    let damaged = |what: String| StoreError::Damaged(what);
    let mut store = host.medium.open()?;
    let recovered = store.recover()?;
    let (open, made) = (recovered.open.len(), recovered.made.len());
    if open + made > 0 {
        return Err(damaged(format!("{open} tasks and {made} handoffs are open at rest")));
    }
    let mut book = Book::default();
    let mut decoder = EntryDecoder::default();
    host.medium.whole_ledger(&mut *store, &mut |mut bytes| {
        loop {
            let before = decoder.offset();
            let Some(entry) = decoder.decode(bytes).map_err(|e| damaged(e.to_string()))? else {
                return Ok(());
            };
            bytes = &bytes[(decoder.offset() - before) as usize..];
            book.entries.push(entry);
        }
    })?;
    let mut reader = store.reader()?;
    for peer in (0..host.peers.len() as u32).map(PeerId) {
        let (rows, _) = reader.tasks(peer, &Filter { limit: ROWS_MAX, ..Filter::default() })?;
        book.tasks.extend(rows.into_iter().map(|row| ((row.peer, row.id), row)));
    }
    for Entry { agent, record } in &book.entries {
        match record.clone() {
            Record::Received { handoff, .. } => {
                book.path.entry(handoff.id.episode).or_default().push(handoff)
            }
            Record::Decided { handoff, table: Table::Operations, action, .. } => {
                book.operations.insert(handoff, OperationId(action.0));
            }
            Record::Performed { handoff, usage, .. } if usage.failures > 0 => {
                book.failed.insert(handoff);
            }
            Record::Decided { handoff, table: Table::Successors, .. } => {
                book.decided.extend(handoff.next(*agent).map(|made| (made, handoff)));
            }
            Record::Settled { handoff, table: Table::Successors, .. } => {
                *book.settled.entry((*agent, handoff)).or_default() += 1;
            }
            Record::Expired { handoff } => *book.expired.entry((*agent, handoff)).or_default() += 1,
            Record::Censored { handoff, .. } => *book.censored.entry(handoff).or_default() += 1,
            Record::Finished { handoff, reward } => {
                book.finished.entry(handoff).or_default().push(reward.get());
            }
            Record::Valued { message } => drop(book.valued.insert(message.handoff, message.value.get())),
            Record::Crossed { wire, peer, way: Way::In, .. } => {
                *book.came.entry((peer, wire)).or_default() += 1;
            }
            Record::Crossed { handoff, wire, way: Way::Out, .. } => {
                let wire = WireId::from_bytes(wire).ok_or_else(|| damaged("an id that is none".into()))?;
                book.went.entry(handoff.episode).or_default().push(wire);
                if let Some(row) = store.made(wire)? {
                    book.made.insert(wire, row);
                }
            }
            _ => {}
        }
    }
    Ok(book)
}

/// What agents have learned is the fold of the ledger, and of a snapshot with what follows, bit for bit.
fn learned(host: &mut Host<'_>, book: &Book, crew: &Crew, broken: &mut Vec<String>) {
    let bytes = |crew: &Crew| -> Result<Vec<Vec<u8>>, String> {
        let all = crew.participants.iter().zip(&crew.rngs);
        all.map(|(participant, rng)| participant.save(rng).map_err(|e| e.to_string())).collect()
    };
    let folded = || -> Result<Vec<Vec<u8>>, String> {
        let mut crew = Crew::new(host.stage, host.spec.seed, host.spec.horizon).map_err(|e| e.to_string())?;
        let mut replays: Vec<Replay> = crew.participants.iter().map(|_| Replay::default()).collect();
        for Entry { agent, record } in book.entries.iter().filter(|entry| entry.agent != AgentId::ORIGIN) {
            let i = agent.0 as usize;
            let taken = replays[i].take(&mut crew.participants[i], &mut crew.rngs[i], record);
            taken.map_err(|e| e.to_string())?;
        }
        bytes(&crew)
    };
    let live = bytes(crew);
    if live.is_err() || live != folded() {
        broken.push(format!(
            "{}: what was learned is not the fold of the ledger: {:?}",
            host.name,
            folded().err()
        ));
    }
    let time = host.clock.load(std::sync::atomic::Ordering::Relaxed);
    let recovered = host.medium.open().map_err(|e| e.to_string()).and_then(|store| {
        let machine =
            Machine::recover(host.stage, host.spec.clone(), store, time, &mut host.ids, &mut vec![]);
        bytes(machine.map_err(|e| e.to_string())?.crew())
    });
    if live != recovered {
        broken.push(format!(
            "{}: what is recovered is not what was learned: {:?}",
            host.name,
            recovered.err()
        ));
    }
    if crew.participants.iter().any(|p| p.pending().next().or(p.active().next()).is_some()) {
        broken.push(format!("{}: handoffs are pending at rest", host.name));
    }
}

impl Book {
    /// Each handoff of this node was learned from once, or given up once.
    fn check(&self, name: &str, broken: &mut Vec<String>) {
        let of = |map: &BTreeMap<(AgentId, HandoffId), usize>, agent, handoff| {
            map.get(&(agent, handoff)).copied().unwrap_or(0)
        };
        for (made, led) in &self.decided {
            let agent = made.from;
            let given_up = of(&self.expired, agent, *made) + of(&self.expired, agent, *led);
            let ends = of(&self.settled, agent, *made) + given_up;
            if ends != 1 {
                broken.push(format!("{name}: handoff {made} was settled or given up {ends} times"));
            }
        }
        let expired: BTreeSet<HandoffId> = self.expired.keys().map(|(_, handoff)| *handoff).collect();
        if !expired.iter().eq(self.censored.keys()) || self.censored.values().any(|times| *times != 1) {
            broken.push(format!("{name}: what was given up was not pending"));
        }
        for row in self.tasks.values().filter(|row| row.is_open()) {
            broken.push(format!("{name}: task {} is open at rest", row.id));
        }
        for ((peer, wire), times) in &self.came {
            if *times != 1 {
                broken.push(format!(
                    "{name}: {:?} of {peer} was taken on {times} times",
                    WireId::from_bytes(*wire)
                ));
            }
        }
        let closed = self.tasks.values().filter_map(|row| match row.closing {
            Some(Closing::Here(handoff)) => Some((handoff, row.outcome)),
            _ => None,
        });
        let closed: BTreeMap<HandoffId, Option<f64>> = closed.collect();
        for (handoff, rewards) in &self.finished {
            let earned: Vec<f64> = rewards.iter().copied().filter(|reward| *reward != 0.0).collect();
            let told = closed.get(handoff).copied().flatten();
            if rewards.len() != 1 || !earned.is_empty() && told != Some(earned[0]) {
                broken.push(format!("{name}: {handoff} has earned {rewards:?}, and was told {told:?}"));
            }
        }
        for (handoff, told) in closed {
            if told.is_some()
                && self.censored.get(&handoff).copied().unwrap_or(0)
                    + self.finished.get(&handoff).map_or(0, Vec::len)
                    != 1
            {
                broken.push(format!("{name}: {handoff} finished, and did not learn its outcome once"));
            }
        }
        for (episode, wires) in &self.went {
            let kept = wires
                .iter()
                .filter(|wire| self.made.get(wire).is_some_and(|row| row.settled && !row.is_open()));
            if wires.len() != 1 || kept.count() != 1 {
                let EpisodeId(episode) = *episode;
                broken.push(format!(
                    "{name}: task {episode:x} left {} times, or is still on its way",
                    wires.len()
                ));
            }
        }
    }
}

struct All<'a, 's, 't> {
    schedule: &'a Schedule<'s, 't>,
    books: &'a [Book],
}

impl<'a> All<'a, '_, '_> {
    /// What a handoff is at the organisation to which it went.
    fn there(&self, from: usize, wire: &WireId) -> Option<(usize, &'a TaskRow)> {
        let row = self.books[from].made.get(wire)?;
        let to = &self.schedule.hosts[from].peers[row.peer.0 as usize];
        let to = self.schedule.hosts.iter().position(|host| host.name == *to)?;
        self.task(to, &self.schedule.hosts[from].name, &wire.to_string()).map(|row| (to, row))
    }

    fn task(&self, at: usize, peer: &str, message: &str) -> Option<&'a TaskRow> {
        let number = self.schedule.hosts[at].peers.iter().position(|known| known == peer)? as u32;
        self.books[at].tasks.get(&(PeerId(number), TaskId::of(peer, message)))
    }

    /// What was acknowledged is there, and values and outcomes are the same at both ends.
    fn handoffs(&self, broken: &mut Vec<String>) {
        for (wire, (from, to)) in &self.schedule.acknowledged {
            let kept = self.task(*to, from, &wire.to_string()).is_some_and(|row| row.state.is_terminal());
            if !kept || !self.books[*to].came.contains_key(&(from.clone(), wire.bytes())) {
                broken.push(format!("{wire} of {from} was acknowledged by org{to}, and is lost"));
            }
        }
        let lied: BTreeSet<&WireId> = self.schedule.lied.iter().collect();
        for (from, book) in self.books.iter().enumerate() {
            for (wire, made) in book.made.iter().filter(|(wire, _)| !lied.contains(wire)) {
                let (learned, there) = (book.valued.get(&made.handoff), self.there(from, wire));
                if learned.is_some() && learned.copied() != there.and_then(|(_, row)| row.value) {
                    broken
                        .push(format!("{wire} of org{from} was valued {learned:?}, and not by its receiver"));
                }
            }
            for row in book.tasks.values().filter(|row| row.outcome.is_some()) {
                let Some(Closing::There(wire)) = row.closing else { continue };
                if let Some((to, there)) = self.there(from, &wire)
                    && there.outcome != row.outcome
                {
                    let (told, known) = (row.outcome, there.outcome);
                    broken.push(format!(
                        "the outcome of {wire} is {told:?} at org{from}, and {known:?} at org{to}"
                    ));
                }
            }
        }
    }

    /// Each owner has seen how its task ended, and what came out is what the agents on its path make of it.
    fn owners(&self, broken: &mut Vec<String>) {
        for (number, origin) in self.schedule.origins.iter().enumerate() {
            let message = origin.wire.to_string();
            let row = self.task(origin.host, "operator", &message);
            let told = match (&origin.end, row) {
                (None, _) => Err("its owner does not know how it ended".to_owned()),
                (Some(End::Refused(word)), _) => Err(format!("it was refused: {word}")),
                (Some(_), None) => Err("it is lost".to_owned()),
                (Some(_), Some(row)) if origin.was_told != row.outcome.is_some() => {
                    Err(format!("its outcome is {:?}", row.outcome))
                }
                (Some(End::Result(artifact)), Some(row)) if row.state == TaskState::Completed => {
                    match self.played(origin.host, row, origin.artifact.clone()) {
                        Some(made) if made == *artifact => Ok(()),
                        made => Err(format!("{artifact:?} came out, where its path makes {made:?}")),
                    }
                }
                (Some(End::Nothing(_)), Some(row)) if row.state != TaskState::Completed => Ok(()),
                (end, Some(row)) => Err(format!("it is {:?}, and its owner knows of {end:?}", row.state)),
            };
            if let Err(what) = told {
                broken.push(format!("task {number}, {}: {what}", origin.wire));
            }
        }
    }

    /// What the agents on the path of a task make of it.
    fn played(
        &self,
        mut at: usize,
        mut row: &'a TaskRow,
        mut artifact: relevo::artifact::Artifact,
    ) -> Option<relevo::artifact::Artifact> {
        loop {
            let (host, book) = (&self.schedule.hosts[at], &self.books[at]);
            let path = book.path.get(&row.id.episode()).into_iter().flatten();
            for Handoff { id, to, .. } in path.filter(|handoff| !book.failed.contains(&handoff.id)) {
                let kind = *self.schedule.world.organisations[at].agents.get(to.0 as usize)?;
                let operation = book.operations.get(id).copied().unwrap_or(OperationId(0));
                artifact = world::strip(kind, &host.stage.operation_name(*to, operation), artifact);
            }
            match book.went.get(&row.id.episode()).and_then(|wires| wires.first()) {
                Some(wire) => (at, row) = self.there(at, wire)?,
                None => return Some(artifact),
            }
        }
    }
}
