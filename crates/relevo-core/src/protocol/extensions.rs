//! Beyond the paper's one scalar per handoff, off by default: the local model, refresh, and standard errors
//! ([`Extensions`](crate::learner::Extensions)). A receiver names its situations by opaque handles and may be asked for
//! their values again, or sends a value again when it has moved.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Choice, Effect, Effects, Participant, ValueMessage};
use crate::{
    ids::{ActionId, AgentId, Handle, HandoffId},
    learner::Step,
    observation::{ActionSet, Features, Observation, Signature},
    record::{Record, Table},
    rng::Rng,
    units::{Return, Tau, Usage, Value},
};

/// One cell of the local model: sums over own handoffs (specification of the extension: learning from re-asked
/// receivers).
#[derive(Clone, Debug, Default)]
struct Cell {
    n: f64,
    rewards: f64,
    /// Sum of gamma^tau by receiver and handle.
    receivers: BTreeMap<(AgentId, Handle), f64>,
}

/// A receiver's situation as the local model knows it: its last value, and the cells that this value enters.
#[derive(Clone, Debug)]
struct Receiver {
    value: Value,
    cells: BTreeSet<(Signature, ActionId)>,
}

/// What the extensions keep.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended {
    /// Own situations by handle.
    handles: BTreeMap<Handle, (Table, Observation)>,
    /// Local model: cells, receivers' last values, and which cells a receiver's value enters.
    cells: BTreeMap<(Signature, ActionId), Cell>,
    receivers: BTreeMap<(AgentId, Handle), Receiver>,
    /// Refresh, receiving side: own situations whose value was sent, and how many values they hold together.
    sent: BTreeMap<Signature, Sent>,
    sent_values: usize,
    /// Refresh, sending side: steps already settled, by handoff, the newest per cell.
    used: BTreeMap<HandoffId, Used>,
    used_by_cell: BTreeMap<(Signature, ActionId), HandoffId>,
}

/// An own situation and the last value that each predecessor was sent of it, in the order of the predecessors.
#[derive(Clone, Debug)]
struct Sent {
    observation: Observation,
    last: Vec<ValueMessage>,
}

/// What a settled step needs to be moved to a new target.
#[derive(Clone, Debug)]
struct Used {
    signature: Signature,
    features: Features,
    action: ActionId,
    reward: Return,
    tau: Tau,
    /// Of the value that it has been moved to.
    revision: u32,
}

impl Extended {
    fn sent(&mut self, o: &Observation, message: ValueMessage, max: usize) {
        let sent = self.sent.entry(o.signature).or_insert(Sent { observation: o.clone(), last: Vec::new() });
        sent.observation.clone_from(o);
        match sent.last.binary_search_by_key(&message.handoff.from, |last| last.handoff.from) {
            Ok(place) => sent.last[place] = message,
            Err(place) => {
                sent.last.insert(place, message);
                self.sent_values += 1;
            }
        }
        if self.sent_values > max
            && let Some(mut first) = self.sent.first_entry()
        {
            self.sent_values -= 1;
            first.get_mut().last.remove(0);
            if first.get().last.is_empty() {
                first.remove();
            }
        }
    }
}

impl Participant {
    pub(super) fn value_message(
        &mut self,
        id: HandoffId,
        table: Table,
        o: &Observation,
        value: Value,
        rng: &Rng,
    ) -> ValueMessage {
        let mut message = ValueMessage::new(id, value);
        let extensions = self.spec.learner.extensions;
        if extensions.standard_error.is_some() {
            message.standard_error = Value::new(self.learner.appraise(table, o).standard_error).ok();
        }
        if extensions.local_model {
            // Unlinkable to the signature without this agent's stream.
            let handle = Handle(rng.fork([o.signature.0, 0, 0]).bits());
            bounded_insert(
                &mut self.extended.handles,
                handle,
                (table, o.clone()),
                self.spec.limits.extended_max,
            );
            message.handle = Some(handle);
        }
        if extensions.refresh.is_some() {
            self.extended.sent(o, message, self.spec.limits.extended_max);
        }
        message
    }

    /// Refresh, receiving side: values that moved by more than theta are sent again.
    pub(super) fn push(&mut self, signature: Signature, effects: &mut Effects) {
        let (Some(theta), Some(table)) = (self.spec.learner.extensions.refresh, self.table_at_activation())
        else {
            return;
        };
        let Some(Sent { observation, last }) = self.extended.sent.get_mut(&signature) else { return };
        let value = self.learner.view(table, observation).value();
        for last in last.iter_mut().filter(|last| (value.get() - last.value.get()).abs() > theta) {
            last.value = value;
            last.revision += 1;
            effects.push(Effect::Value { to: last.handoff.from, message: *last });
        }
    }

    pub(super) fn keep_used(&mut self, handoff: HandoffId, step: Step) {
        let Step { observation: Observation { signature, features, .. }, action, reward, tau, .. } = step;
        let cell = (signature, action);
        let Extended { used, used_by_cell, .. } = &mut self.extended;
        if let Some(older) = used_by_cell.insert(cell, handoff) {
            used.remove(&older);
        }
        used.insert(handoff, Used { signature, features, action, reward, tau, revision: 0 });
        if used.len() > self.spec.limits.extended_max
            && let Some((_, oldest)) = used.pop_first()
        {
            used_by_cell.remove(&(oldest.signature, oldest.action));
        }
    }

    /// Refresh, sending side: move the newest step of a cell to the new target without counting a visit.
    pub(super) fn refreshed(&mut self, message: ValueMessage, effects: &mut Effects) {
        let fresh =
            self.extended.used.get_mut(&message.handoff).filter(|used| message.revision > used.revision);
        let (Some(used), Some(_)) = (fresh, self.spec.learner.extensions.refresh) else {
            self.counters.late_values += 1;
            return;
        };
        used.revision = message.revision;
        let Used { signature, action, reward, tau, .. } = *used;
        let observation =
            Observation { signature, features: used.features.clone(), legal: ActionSet::default() };
        let step = Step { observation, action, reward, tau, usage: Usage::default() };
        self.record(effects, || Record::Valued { message });
        let value = self.spec.learner.bounds.clamp(message.value);
        let target = self.learner.target(&step, Some(value));
        let revised = self.learner.revise(&step, target);
        self.revised(&step, revised, effects);
    }

    fn revised(&mut self, step: &Step, value: f64, effects: &mut Effects) {
        let (signature, action) = (step.observation.signature, step.action);
        self.record(effects, || Record::Revised { table: Table::Successors, signature, action, value });
        self.push(signature, effects);
    }

    /// Local model: take in a step and give the value of its cell,
    /// `Q(o, a) = (sum R + sum_h (sum gamma^tau)_h V_h) / n`.
    pub(super) fn modelled(
        &mut self,
        step: &Step,
        discount: f64,
        received: Option<(&ValueMessage, Value)>,
    ) -> f64 {
        // Cells are bounded as the graph is, by sharing its node for the rest.
        let key = (self.learner.key(Table::Successors, step.observation.signature), step.action);
        let cell = self.extended.cells.entry(key).or_default();
        cell.n += 1.0;
        cell.rewards += step.reward.get();
        if let (Some((message, value)), Choice::HandTo(to)) =
            (received, self.spec.choices[step.action.index()])
        {
            // A receiver that gives no handle is one situation to us.
            let mut receiver = (to, message.handle.unwrap_or(Handle(0)));
            let full = self.extended.receivers.len() >= self.spec.limits.extended_max;
            if full && !self.extended.receivers.contains_key(&receiver) {
                receiver.1 = Handle(0);
            }
            *cell.receivers.entry(receiver).or_default() += discount;
            let fresh = Receiver { value, cells: BTreeSet::new() };
            let known = self.extended.receivers.entry(receiver).or_insert(fresh);
            known.value = value;
            known.cells.insert(key);
        }
        self.cell_value(key).expect("the cell was just written")
    }

    fn cell_value(&self, key: (Signature, ActionId)) -> Option<f64> {
        let cell = self.extended.cells.get(&key)?;
        let future: f64 =
            cell.receivers.iter().map(|(r, g)| g * self.extended.receivers[r].value.get()).sum();
        Some((cell.rewards + future) / cell.n)
    }

    pub(super) fn replan(&mut self, effects: &mut Effects) {
        if !self.spec.learner.extensions.local_model {
            return;
        }
        self.record(effects, || Record::Replanned);
        for (to, handle) in self.extended.receivers.keys() {
            effects.push(Effect::Ask { to: *to, handle: *handle });
        }
    }

    pub(super) fn asked(&mut self, from: AgentId, handle: Handle, effects: &mut Effects) {
        let Some((table, observation)) = self.extended.handles.get(&handle) else {
            self.counters.unknown_values += 1;
            return;
        };
        let value = self.learner.appraise(*table, observation).value;
        effects.push(Effect::Answer { to: from, handle, value });
    }

    pub(super) fn answered(&mut self, from: AgentId, handle: Handle, value: Value, effects: &mut Effects) {
        let value = self.spec.learner.bounds.clamp(value);
        let Some(receiver) = self.extended.receivers.get_mut(&(from, handle)) else {
            self.counters.unknown_values += 1;
            return;
        };
        receiver.value = value;
        let cells = receiver.cells.clone();
        self.record(effects, || Record::Answered { from, handle, value });
        for (signature, action) in cells {
            let value = self.cell_value((signature, action)).expect("it is in a receiver's list");
            self.learner.assign(signature, action, value);
            self.record(effects, || Record::Revised { table: Table::Successors, signature, action, value });
        }
    }
}

fn bounded_insert<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V, max: usize) {
    map.insert(key, value);
    if map.len() > max {
        map.pop_first();
    }
}
