//! A store for simulation: its disk outlives it, and fails when it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Included, Unbounded},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Filter, MadeRow, PushRow, Reader, Recovered, Store, StoreError, TaskRow};
use crate::ids::{PeerId, TaskId, WireId};

/// What goes wrong once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room for the next commit.
    Full,
    /// The next commit fails, and nothing of it is there.
    NotDone,
    /// The next commit fails, and yet it is there.
    Done,
    /// The next write before a commit fails.
    Torn,
}

/// What survives a crash of a store: everything that was committed, which it also reads. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// Let this go wrong, once.
    pub fn fail_next(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row, and which of its kind it was, counted from the first.
type Numbered<T> = (u64, T);

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    ledger: Vec<Box<[u8]>>,
    snapshots: BTreeMap<u64, Vec<u8>>,
    rows: Rows,
    peers: Vec<(String, Vec<u8>)>,
    /// Tasks at which somebody works, and handoffs that are not over, by their order.
    tasks_open: BTreeMap<u64, (PeerId, TaskId)>,
    made_open: BTreeMap<u64, WireId>,
    changed: BTreeSet<(PeerId, u64, TaskId)>,
}

/// Rows by their keys: all that are committed, or those that were written since.
#[derive(Default)]
struct Rows {
    numbers: BTreeMap<String, PeerId>,
    tasks: BTreeMap<(PeerId, TaskId), Numbered<TaskRow>>,
    messages: BTreeMap<(PeerId, String), TaskId>,
    made: BTreeMap<WireId, Numbered<MadeRow>>,
    pushes: BTreeMap<(PeerId, TaskId, String), Option<String>>,
}

impl Rows {
    /// Where a peer wants to be told, from this task on.
    fn pushes_from(&self, peer: PeerId, task: TaskId) -> impl Iterator<Item = PushRow> {
        let from = self.pushes.range((peer, task, String::new())..).take_while(move |(key, _)| key.0 == peer);
        from.filter_map(|((peer, task, id), config)| {
            let config = config.clone()?;
            Some(PushRow { peer: *peer, task: *task, id: id.clone(), config })
        })
    }
}

/// What was written since the last commit.
#[derive(Default)]
struct Written {
    rows: Rows,
    new_peers: Vec<String>,
    new_tasks: u64,
    new_made: u64,
    counters: BTreeMap<PeerId, Vec<u8>>,
    snapshot: Option<Vec<u8>>,
}

/// A store on a [`Disk`].
pub struct MemoryStore {
    disk: Disk,
    written: Written,
    commits: u64,
    /// Whether what was written may be committed: not before it was recovered, nor after an error.
    sound: bool,
}

impl MemoryStore {
    /// The store on this disk. What another one on it has not committed is not there.
    pub fn open(disk: &Disk) -> Self {
        MemoryStore { disk: disk.clone(), written: Written::default(), commits: 0, sound: false }
    }

    /// Do something with what is written and what is committed. After an error it is beyond use.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Written, &State) -> Result<T, &'static str>,
    ) -> Result<T, StoreError> {
        let mut state = self.disk.state();
        let fails = state.fault.take_if(|fault| *fault == Fault::Torn).is_some();
        let done = match (self.sound, fails) {
            (false, _) => Err("not recovered yet"),
            (_, true) => Err("a write failed"),
            _ => work(&mut self.written, &state),
        };
        self.sound = done.is_ok();
        done.map_err(failed)
    }
}

impl Store for MemoryStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        let state = self.disk.state();
        (self.written, self.sound) = (Written::default(), true);
        self.commits = state.ledger.len() as u64;
        Ok(Recovered {
            snapshot: state.snapshots.last_key_value().map(|(commits, bytes)| (*commits, bytes.clone())),
            peers: state.peers.clone(),
            open: state.tasks_open.values().copied().collect(),
            made: state.made_open.values().copied().collect(),
        })
    }

    fn ledger(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.disk.state().ledger.iter().skip(after as usize).try_for_each(|entries| each(entries))
    }

    fn commits(&self) -> u64 {
        self.commits
    }

    fn commit(&mut self, entries: &[u8]) -> Result<(), StoreError> {
        // A commit is a write too, and the last chance of that fault.
        self.write(|_, _| Ok(()))?;
        let mut state = self.disk.state();
        let fault = state.fault.take();
        self.sound = fault.is_none();
        match fault {
            Some(Fault::Full) => return Err(StoreError::Full("memory".to_owned())),
            Some(Fault::NotDone | Fault::Torn) => return Err(failed("a commit failed")),
            Some(Fault::Done) | None => state.commit(std::mem::take(&mut self.written), entries),
        }
        self.commits += 1;
        fault.map_or(Ok(()), |_| Err(failed("a commit failed")))
    }

    fn snapshot(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(|written, _| {
            written.snapshot = Some(bytes.to_vec());
            Ok(())
        })
    }

    fn peer(&mut self, name: &str) -> Result<PeerId, StoreError> {
        self.write(|written, state| {
            let known = written.rows.numbers.get(name).or_else(|| state.rows.numbers.get(name));
            Ok(known.copied().unwrap_or_else(|| {
                let number = PeerId((state.peers.len() + written.new_peers.len()) as u32);
                written.rows.numbers.insert(name.to_owned(), number);
                written.new_peers.push(name.to_owned());
                number
            }))
        })
    }

    fn count(&mut self, peer: PeerId, counters: &[u8]) -> Result<(), StoreError> {
        self.write(|written, state| {
            if peer.0 as usize >= state.peers.len() + written.new_peers.len() {
                return Err("no such peer");
            }
            written.counters.insert(peer, counters.to_vec());
            Ok(())
        })
    }

    fn task(&mut self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        let key = (peer, id);
        let state = self.disk.state();
        let kept = self.written.rows.tasks.get(&key).or_else(|| state.rows.tasks.get(&key));
        Ok(kept.map(|(_, row)| row.clone()))
    }

    fn put_task(&mut self, row: &TaskRow) -> Result<(), StoreError> {
        self.write(|written, state| {
            let (key, message) = ((row.peer, row.id), (row.peer, row.message.clone()));
            let known = written.rows.messages.get(&message).or_else(|| state.rows.messages.get(&message));
            let kept = written.rows.tasks.get(&key).or_else(|| state.rows.tasks.get(&key));
            if known.is_some_and(|id| *id != row.id)
                || kept.is_some_and(|(_, kept)| kept.message != row.message)
            {
                return Err("a message is one task, and a task came in one message");
            }
            let number =
                kept.map_or(state.rows.tasks.len() as u64 + written.new_tasks, |(number, _)| *number);
            if kept.is_none() {
                written.new_tasks += 1;
                written.rows.messages.insert(message, row.id);
            }
            written.rows.tasks.insert(key, (number, row.clone()));
            Ok(())
        })
    }

    fn made(&mut self, wire: WireId) -> Result<Option<MadeRow>, StoreError> {
        let state = self.disk.state();
        let kept = self.written.rows.made.get(&wire).or_else(|| state.rows.made.get(&wire));
        Ok(kept.map(|(_, row)| row.clone()))
    }

    fn put_made(&mut self, row: &MadeRow) -> Result<(), StoreError> {
        self.write(|written, state| {
            let kept = written.rows.made.get(&row.wire).or_else(|| state.rows.made.get(&row.wire));
            let number = kept.map_or(state.rows.made.len() as u64 + written.new_made, |(number, _)| *number);
            written.new_made += u64::from(kept.is_none());
            written.rows.made.insert(row.wire, (number, row.clone()));
            Ok(())
        })
    }

    fn put_push(&mut self, row: &PushRow) -> Result<(), StoreError> {
        self.write(|written, _| {
            written.rows.pushes.insert((row.peer, row.task, row.id.clone()), Some(row.config.clone()));
            Ok(())
        })
    }

    fn drop_push(&mut self, peer: PeerId, task: TaskId, id: &str) -> Result<bool, StoreError> {
        self.write(|written, state| {
            let key = (peer, task, id.to_owned());
            let kept = written.rows.pushes.get(&key).or_else(|| state.rows.pushes.get(&key));
            let kept = kept.is_some_and(Option::is_some);
            written.rows.pushes.insert(key, None);
            Ok(kept)
        })
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.disk.clone()))
    }
}

impl State {
    fn commit(&mut self, written: Written, entries: &[u8]) {
        self.ledger.push(entries.into());
        if let Some(snapshot) = written.snapshot {
            self.snapshots.insert(self.ledger.len() as u64, snapshot);
            while self.snapshots.len() > 2 {
                self.snapshots.pop_first();
            }
        }
        self.peers.extend(written.new_peers.into_iter().map(|name| (name, vec![])));
        for (peer, counters) in written.counters {
            self.peers[peer.0 as usize].1 = counters;
        }
        let rows = written.rows;
        for (key, (number, row)) in rows.tasks {
            match row.is_open() {
                true => self.tasks_open.insert(number, key),
                false => self.tasks_open.remove(&number),
            };
            self.changed.insert((row.peer, row.changed_ms, row.id));
            let changed_ms = row.changed_ms;
            if let Some((_, old)) = self.rows.tasks.insert(key, (number, row))
                && old.changed_ms != changed_ms
            {
                self.changed.remove(&(old.peer, old.changed_ms, old.id));
            }
        }
        for (wire, (number, row)) in rows.made {
            match row.is_open() {
                true => self.made_open.insert(number, wire),
                false => self.made_open.remove(&number),
            };
            self.rows.made.insert(wire, (number, row));
        }
        for (key, config) in rows.pushes {
            match config {
                Some(_) => self.rows.pushes.insert(key, config),
                None => self.rows.pushes.remove(&key),
            };
        }
        self.rows.numbers.extend(rows.numbers);
        self.rows.messages.extend(rows.messages);
    }
}

impl Reader for Disk {
    fn task(&mut self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        Ok(self.state().rows.tasks.get(&(peer, id)).map(|(_, row)| row.clone()))
    }

    fn tasks(&mut self, peer: PeerId, filter: &Filter) -> Result<(Vec<TaskRow>, u64), StoreError> {
        let state = self.state();
        let nil = TaskId::from_bytes([0; 16]);
        let first = Included((peer, filter.changed_since_ms.unwrap_or(0), nil));
        let last = peer.0.checked_add(1).map_or(Unbounded, |next| Excluded((PeerId(next), 0, nil)));
        let wanted = |row: &&TaskRow| {
            filter.context.as_ref().is_none_or(|context| row.context == *context)
                && filter.state.is_none_or(|state| row.state == state)
        };
        let all = || {
            let keys = state.changed.range((first, last)).rev();
            keys.map(|(peer, _, id)| &state.rows.tasks[&(*peer, *id)].1).filter(wanted)
        };
        let behind = |row: &&TaskRow| filter.after.is_none_or(|after| (row.changed_ms, row.id) < after);
        Ok((all().filter(behind).take(filter.limit).cloned().collect(), all().count() as u64))
    }

    fn pushes(&mut self, peer: PeerId, task: TaskId) -> Result<Vec<PushRow>, StoreError> {
        let state = self.state();
        let own = state.rows.pushes_from(peer, task).take_while(|row| row.task == task);
        Ok(own.collect())
    }

    fn untold(&mut self, peer: PeerId, limit: usize) -> Result<Vec<PushRow>, StoreError> {
        let state = self.state();
        let all = state.rows.pushes_from(peer, TaskId::from_bytes([0; 16]));
        let has_ended = |row: &PushRow| {
            state.rows.tasks.get(&(peer, row.task)).is_some_and(|(_, task)| task.state.is_terminal())
        };
        Ok(all.filter(has_ended).take(limit).collect())
    }

    fn peers(&mut self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(self.state().peers.clone())
    }
}

fn failed(what: &str) -> StoreError {
    StoreError::Failed(format!("memory: {what}"))
}
