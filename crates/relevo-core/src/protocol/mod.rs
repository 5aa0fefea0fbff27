//! The protocol: one participant, events in, effects out (paper, Algorithm 1, both regimes, asynchronous).
//!
//! A handoff comes in as [`Event::Received`]; the driver carries out the [`Effect`]s in order, after their records
//! are durable, and reports what happened as further events, until [`Effect::Send`] passes the task on and
//! [`Event::Valued`] brings the one scalar back.
//!
//! What is absent: no clock, no network, no artifact, no other agent's observation. A late, duplicated, reordered or
//! unknown value changes nothing; a value settles at most once; an expired handoff is dropped and counted, never
//! imputed as 0.

mod extensions;
mod known;
mod messages;
mod saved;
mod slab;

pub use messages::{
    Choice, Counters, Effect, Effects, Event, Handoff, Journal, Limits, Next, ParticipantSpec, ProtocolError,
    ValueMessage,
};

use alloc::{collections::VecDeque, vec::Vec};
use foldhash::fast::FixedState;
use minicbor::{Decode, Encode};

use crate::{
    graph::Prior,
    ids::{ActionId, HandoffId, OperationId},
    learner::{Credit, DecisionPoint, Learner, Regime, SpecError, Step, View},
    observation::{Observation, Signature},
    policy::Decision,
    record::{Record, Table},
    rng::Rng,
    units::{Confidence, Return, Tau, Usage, Value},
};
use extensions::Extended;
use known::{Known, Met, Place};
use slab::{Slab, Slot};

/// What an operation came to.
#[derive(Clone, Copy, Debug)]
struct Operation {
    reward: Return,
    tau: Tau,
    usage: Usage,
}

/// A local operation of an adaptable agent, on its way to be settled.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
struct LocalStep {
    #[n(0)]
    step: Step,
    #[n(1)]
    greedy: bool,
    #[n(2)]
    outcome: Outcome,
}

/// Whether an operation left anything to learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Outcome {
    #[n(0)]
    Learned,
    #[n(1)]
    Failed,
}

/// A choice, taken and not yet settled.
#[derive(Clone, Copy, Debug, Encode, Decode)]
#[cbor(array)]
struct Chosen {
    #[n(0)]
    action: ActionId,
    #[n(1)]
    greedy: bool,
}

/// A handoff being worked on.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
struct Activation {
    #[n(0)]
    clock: u64,
    /// What it is at: the observation of the running operation.
    #[n(1)]
    observation: Observation,
    /// Decided before: the choice of a successor already taken; adaptable: the operation being performed.
    #[n(2)]
    chosen: Option<Chosen>,
    /// Adaptable under relay: operations performed, to be settled in reverse.
    #[n(3)]
    trail: Vec<LocalStep>,
}

/// A handoff made, waiting for its value.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
struct Pending {
    /// The handoff that activated the agent: whom relay and trajectory credit answer.
    #[n(0)]
    incoming: HandoffId,
    #[n(1)]
    step: Step,
    #[n(2)]
    greedy: bool,
    /// Decided after: reward and discount of the agent's own operation before the choice.
    #[n(3)]
    prefix: (f64, f64),
    #[n(4)]
    trail: Vec<LocalStep>,
    /// Its place in [`Participant::made`].
    #[n(5)]
    made: u64,
}

/// One agent's side of the protocol: its learner, and the handoffs in flight.
#[derive(Clone, Debug)]
pub struct Participant {
    spec: ParticipantSpec,
    learner: Learner,
    known: Known,
    active: Slab<Activation>,
    pending: Slab<Pending>,
    /// Handoffs made, numbered, oldest first; those no longer pending are taken out now and then.
    made: VecDeque<(u64, Slot)>,
    next_made: u64,
    extended: Extended,
    /// What was said of the event that comes next.
    trusted: Option<(HandoffId, Confidence)>,
    /// How far the event at hand may be trusted.
    confidence: Confidence,
    counters: Counters,
}

impl Participant {
    /// A participant that has seen nothing yet; `rng` initialises its networks.
    pub fn new(spec: ParticipantSpec, rng: &mut Rng) -> Result<Self, SpecError> {
        if spec.choices.len() != spec.learner.successors as usize {
            return Err(SpecError::Combination("every column of the successor table needs a meaning"));
        }
        // Ids come from outside: the order in which they lie must not be for others to choose.
        let hash = FixedState::with_seed(rng.fork([0; 3]).bits());
        Ok(Participant {
            learner: Learner::new(spec.learner.clone(), rng)?,
            spec,
            known: Known::new(hash),
            active: Slab::new(),
            pending: Slab::new(),
            made: VecDeque::new(),
            next_made: 0,
            extended: Extended::default(),
            trusted: None,
            confidence: Confidence::FULL,
            counters: Counters::default(),
        })
    }

    /// Who it is and what it is made of.
    pub fn spec(&self) -> &ParticipantSpec {
        &self.spec
    }

    /// What it has learned.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// What it has learned, to put back what a policy file holds.
    pub fn learner_mut(&mut self) -> &mut Learner {
        &mut self.learner
    }

    /// What was dropped or refused.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Handoffs made and not yet answered, in ascending order.
    pub fn pending(&self) -> impl Iterator<Item = HandoffId> + '_ {
        self.ascending(|met| met.pending)
    }

    /// Handoffs received and still worked on, in ascending order.
    pub fn active(&self) -> impl Iterator<Item = HandoffId> + '_ {
        self.ascending(|met| met.active)
    }

    fn ascending(&self, kept: fn(&Met) -> Option<Slot>) -> impl Iterator<Item = HandoffId> + use<> {
        let in_flight = self.known.iter().filter(|met| kept(met).is_some());
        let mut ids: Vec<HandoffId> = in_flight.map(|met| met.handoff).collect();
        ids.sort_unstable();
        ids.into_iter()
    }

    /// Take in one event; the effects are appended to `effects`. On an error nothing has changed.
    pub fn apply(&mut self, event: Event, rng: &mut Rng, effects: &mut Effects) -> Result<(), ProtocolError> {
        let trusted = self.trusted.take();
        let ends = match &event {
            Event::Finished { handoff, .. } | Event::Performed { handoff, next: Next::Ended, .. } => {
                Some(*handoff)
            }
            _ => None,
        };
        let meant = trusted.filter(|(handoff, _)| Some(*handoff) == ends);
        self.confidence = meant.map_or(Confidence::FULL, |(_, confidence)| confidence);
        let applied = match event {
            Event::Trusted { handoff, confidence } => {
                self.trusted = Some((handoff, confidence));
                self.record(effects, || Record::Trusted { handoff, confidence });
                Ok(())
            }
            Event::Received { handoff, observation } => self.received(handoff, observation, rng, effects),
            Event::Performed { handoff, reward, tau, usage, next } => {
                let done = Operation { reward, tau, usage };
                self.performed(handoff, done, Outcome::Learned, next, rng, effects)
            }
            Event::Failed { handoff, usage, next } => {
                let usage = Usage { failures: usage.failures.max(1), ..usage };
                let done = Operation { reward: Return::ZERO, tau: Tau::ONE, usage };
                self.performed(handoff, done, Outcome::Failed, next, rng, effects)
            }
            Event::Valued(message) => {
                self.valued(message, effects);
                Ok(())
            }
            Event::Finished { handoff, reward } => {
                self.finished(handoff, reward, effects);
                Ok(())
            }
            Event::Expired { handoff } => {
                self.expired(handoff, effects);
                Ok(())
            }
            Event::Asked { from, handle } => {
                self.asked(from, handle, effects);
                Ok(())
            }
            Event::Answered { from, handle, value } => {
                self.answered(from, handle, value, effects);
                Ok(())
            }
            Event::Primed { table, signature, action, value, weight } => {
                self.primed((table, signature, action), value, weight, effects)
            }
            Event::Replan => {
                self.replan(effects);
                Ok(())
            }
        };
        self.counters.refused += u64::from(applied.is_err());
        applied
    }

    fn record(&self, effects: &mut Effects, record: impl FnOnce() -> Record) {
        if self.spec.journal == Journal::Kept {
            effects.push(Effect::Record(record()));
        }
    }

    fn check(&self, table: Table, o: &Observation) -> Result<(), ProtocolError> {
        let width = match (table, self.spec.learner.regime) {
            (Table::Successors, _) => self.spec.choices.len(),
            (Table::Operations, Regime::Adaptable { operations }) => operations as usize,
            (Table::Operations, Regime::PreConfigured(_)) => 0,
        };
        let (found, span) = (o.legal.len(), o.legal.span());
        if found == 0 || span > width {
            return Err(ProtocolError::Choices { found, span, width });
        }
        Ok(self.learner.accepts(table, o)?)
    }

    fn primed(
        &mut self,
        (table, signature, action): (Table, Signature, ActionId),
        value: Value,
        weight: u32,
        effects: &mut Effects,
    ) -> Result<(), ProtocolError> {
        if self.counters.received > 0 {
            return Err(ProtocolError::Prior("it comes before the first handoff"));
        }
        if weight == 0 {
            return Err(ProtocolError::Prior("it counts as one visit at least"));
        }
        if !self.learner.takes_priors(table) {
            return Err(ProtocolError::Prior("only a table takes one, and not with the local model"));
        }
        match self.learner.graph_mut(table).filter(|graph| action.index() < graph.width()) {
            Some(graph) => graph.prime(signature, action, Prior { value: value.get(), weight }),
            None => return Err(ProtocolError::Prior("the agent has no such choice")),
        }
        self.record(effects, || Record::Primed { table, signature, action, value, weight });
        Ok(())
    }

    /// The table that the observation at activation is about; `None` if nothing is decided at activation.
    fn table_at_activation(&self) -> Option<Table> {
        match self.spec.learner.regime {
            Regime::PreConfigured(DecisionPoint::Before) => Some(Table::Successors),
            Regime::PreConfigured(DecisionPoint::After) => None,
            Regime::Adaptable { .. } => Some(Table::Operations),
        }
    }

    fn received(
        &mut self,
        handoff: Handoff,
        observation: Observation,
        rng: &mut Rng,
        effects: &mut Effects,
    ) -> Result<(), ProtocolError> {
        let Handoff { id, to, clock } = handoff;
        if to != self.spec.id {
            return Err(ProtocolError::NotAddressed { handoff: id, to, me: self.spec.id });
        }
        // The same handoff again: give the same answer, if there is one by now, and do nothing twice.
        if let Some(answer) = self.known.place(id).and_then(|place| self.known.answer(place)) {
            self.counters.duplicate_handoffs += 1;
            if let Some(message) = answer {
                effects.push(Effect::Value { to: id.from, message });
            }
            return Ok(());
        }
        if self.active.len() >= self.spec.limits.active_max {
            return Err(ProtocolError::Overloaded { active: self.active.len() });
        }
        if id.next(self.spec.id).is_none() {
            return Err(ProtocolError::TooLong { handoff: id });
        }
        let table = self.table_at_activation();
        if !observation.is_recordable() {
            return Err(ProtocolError::Unrecordable { handoff: id });
        }
        if let Some(table) = table {
            self.check(table, &observation)?;
        }
        self.counters.received += 1;
        self.record(effects, || Record::Received { handoff, observation: observation.clone() });
        let place = self.known.place_or_insert(id);
        let Some(table) = table else {
            effects.push(Effect::Perform { handoff: id, operation: OperationId(0), committed: None });
            self.known.receive(place, None);
            self.activate(place, Activation { clock, observation, chosen: None, trail: Vec::new() });
            return Ok(());
        };
        // V is the greedy value, computed before acting, never that of the action then explored.
        let view = self.learner.view(table, &observation);
        let value = view.value();
        let (chosen, decided) = self.decide(&view, id, table, clock, rng);
        self.learner.open(table, observation.signature, chosen.action);
        if self.spec.learner.credit == Credit::ValuePassing {
            let message = self.value_message(id, table, &observation, value, rng);
            // It is remembered from the end of the activation on; until then `active` bounds it.
            self.answer(place, message, effects);
        } else {
            self.known.receive(place, None);
        }
        effects.extend(decided);
        effects.push(match table {
            Table::Successors => {
                Effect::Perform { handoff: id, operation: OperationId(0), committed: Some(chosen.action) }
            }
            Table::Operations => Self::operate(id, chosen),
        });
        self.activate(place, Activation { clock, observation, chosen: Some(chosen), trail: Vec::new() });
        Ok(())
    }

    #[inline]
    fn activate(&mut self, place: Place, activation: Activation) {
        self.known[place].active = Some(self.active.insert(activation));
    }

    /// Start a chosen local operation (adaptable agents).
    fn operate(handoff: HandoffId, chosen: Chosen) -> Effect {
        Effect::Perform { handoff, operation: OperationId(chosen.action.0), committed: None }
    }

    fn choose(
        &mut self,
        handoff: HandoffId,
        table: Table,
        observation: &Observation,
        clock: u64,
        rng: &mut Rng,
        effects: &mut Effects,
    ) -> Chosen {
        let view = self.learner.view(table, observation);
        let (chosen, decided) = self.decide(&view, handoff, table, clock, rng);
        self.learner.open(table, observation.signature, chosen.action);
        effects.extend(decided);
        chosen
    }

    /// A choice; and its record, which is the only one to need the probabilities.
    fn decide(
        &self,
        view: &View<'_>,
        handoff: HandoffId,
        table: Table,
        clock: u64,
        rng: &mut Rng,
    ) -> (Chosen, Option<Effect>) {
        if self.spec.journal == Journal::Omitted {
            let (action, greedy) = view.choose(handoff.episode, clock, rng);
            return (Chosen { action, greedy }, None);
        }
        let Decision { action, greedy, probabilities, position } = view.decide(handoff.episode, clock, rng);
        let (signature, probabilities) = (view.signature(), probabilities.as_slice().into());
        let record = Record::Decided { handoff, table, signature, action, greedy, probabilities, position };
        (Chosen { action, greedy }, Some(Effect::Record(record)))
    }

    fn performed(
        &mut self,
        id: HandoffId,
        done: Operation,
        outcome: Outcome,
        next: Next,
        rng: &mut Rng,
        effects: &mut Effects,
    ) -> Result<(), ProtocolError> {
        // Everything is checked before anything changes.
        let place = self.known.place(id).and_then(|place| Some((place, self.known[place].active?)));
        let (place, slot) = place.ok_or(ProtocolError::NotActive { handoff: id })?;
        self.check_next(id, &next)?;
        if outcome == Outcome::Failed && !matches!(self.spec.learner.regime, Regime::Adaptable { .. }) {
            return Err(ProtocolError::Regime(
                "only an adaptable agent can go on after an operation that came to nothing",
            ));
        }
        self.known[place].active = None;
        let activation = self.active.remove(slot);
        let Operation { reward, tau, usage } = done;
        self.record(effects, || match outcome {
            Outcome::Learned => Record::Performed { handoff: id, reward, tau, usage, next: next.clone() },
            Outcome::Failed => Record::Failed { handoff: id, usage, next: next.clone() },
        });
        // Answered before acting, it is remembered from the end of the activation on.
        if !matches!(next, Next::Operate(_)) && matches!(self.known.answer(place), Some(Some(_))) {
            self.remember(place);
        }
        match self.spec.learner.regime {
            Regime::PreConfigured(DecisionPoint::Before) => {
                self.performed_after_deciding(id, activation, done, &next, effects);
            }
            Regime::PreConfigured(DecisionPoint::After) => {
                self.performed_before_deciding(id, activation, done, next, rng, effects);
            }
            Regime::Adaptable { .. } => {
                self.performed_by_choice(id, activation, done, outcome, next, rng, effects);
            }
        }
        Ok(())
    }

    /// Whether this kind of agent can go on so after an operation.
    fn check_next(&self, id: HandoffId, next: &Next) -> Result<(), ProtocolError> {
        if let Next::Operate(o) | Next::HandOver(o) = next
            && !o.is_recordable()
        {
            return Err(ProtocolError::Unrecordable { handoff: id });
        }
        match (self.spec.learner.regime, next) {
            (_, Next::Ended) | (Regime::PreConfigured(DecisionPoint::Before), Next::Committed) => Ok(()),
            (Regime::PreConfigured(DecisionPoint::Before), _) => Err(ProtocolError::Regime(
                "this agent chose its successor before its operation: nothing is to be decided after it",
            )),
            (_, Next::HandOver(o)) => self.check(Table::Successors, o),
            (Regime::Adaptable { .. }, Next::Operate(o)) => self.check(Table::Operations, o),
            (Regime::PreConfigured(DecisionPoint::After), _) => Err(ProtocolError::Regime(
                "this agent has one operation and decides after it: an observation for that decision is missing",
            )),
            (Regime::Adaptable { .. }, Next::Committed) => Err(ProtocolError::Regime(
                "an adaptable agent decides after its operation: an observation for that decision is missing",
            )),
        }
    }

    /// The successor was chosen at activation: the operation belongs to that option.
    fn performed_after_deciding(
        &mut self,
        id: HandoffId,
        activation: Activation,
        done: Operation,
        next: &Next,
        effects: &mut Effects,
    ) {
        let Activation { clock, observation, chosen, .. } = activation;
        let Chosen { action, greedy } = chosen.expect("chosen at activation");
        // The price of handing over belongs to the option of the choice that causes it.
        let price = match self.spec.choices[action.index()] {
            Choice::HandTo(_) if *next != Next::Ended => self.spec.handoff_reward.get(),
            _ => 0.0,
        };
        let reward = Return::new(done.reward.get() + price).unwrap_or(done.reward);
        let step = Step { observation, action, reward, tau: done.tau, usage: done.usage };
        let pending = Pending { incoming: id, step, greedy, prefix: (0.0, 1.0), trail: Vec::new(), made: 0 };
        match next {
            Next::Ended => {
                let outgoing = self.outgoing(id);
                let place = self.known.place_or_insert(outgoing);
                self.conclude(place, pending, None, effects);
            }
            _ => self.hand_over(self.outgoing(id), clock, pending, effects),
        }
    }

    /// The successor is chosen now, on what came out of the agent's one operation.
    fn performed_before_deciding(
        &mut self,
        id: HandoffId,
        activation: Activation,
        done: Operation,
        next: Next,
        rng: &mut Rng,
        effects: &mut Effects,
    ) {
        let (own, discount) = (done.reward.get(), self.spec.learner.discount.over(done.tau));
        let Next::HandOver(observation) = next else {
            return self.reply(id, self.bounded(own), effects);
        };
        if self.spec.learner.credit == Credit::ValuePassing {
            // V = R_own + gamma^tau_own max_j Q(o+, j): the value at activation, with the agent's own fixed
            // operation already played out.
            let appraisal = self.learner.appraise(Table::Successors, &observation);
            self.reply(id, self.bounded(own + discount * appraisal.value.get()), effects);
        }
        let chosen = self.choose(id, Table::Successors, &observation, activation.clock, rng, effects);
        let pending = self.pending_of(id, observation, chosen, done.usage, (own, discount), Vec::new());
        self.hand_over(self.outgoing(id), activation.clock, pending, effects);
    }

    /// The operation was itself a choice (adaptable agents).
    #[expect(clippy::too_many_arguments, reason = "one more than clippy's limit, each from the event")]
    fn performed_by_choice(
        &mut self,
        id: HandoffId,
        activation: Activation,
        done: Operation,
        outcome: Outcome,
        next: Next,
        rng: &mut Rng,
        effects: &mut Effects,
    ) {
        let Activation { clock, observation, chosen, mut trail } = activation;
        let Chosen { action, greedy } = chosen.expect("an operation was being performed");
        let Operation { reward, tau, usage } = done;
        let local = LocalStep { step: Step { observation, action, reward, tau, usage }, greedy, outcome };
        match next {
            Next::Operate(o) => {
                self.local(id, local, Some((Table::Operations, &o)), &mut trail, rng, effects);
                let chosen = self.choose(id, Table::Operations, &o, clock, rng, effects);
                effects.push(Self::operate(id, chosen));
                let place = self.known.place_or_insert(id);
                self.activate(place, Activation { clock, observation: o, chosen: Some(chosen), trail });
            }
            Next::HandOver(o) => {
                self.local(id, local, Some((Table::Successors, &o)), &mut trail, rng, effects);
                let chosen = self.choose(id, Table::Successors, &o, clock, rng, effects);
                let pending = self.pending_of(id, o, chosen, Usage::default(), (0.0, 1.0), trail);
                self.hand_over(self.outgoing(id), clock, pending, effects);
            }
            Next::Committed | Next::Ended => {
                self.local(id, local, None, &mut trail, rng, effects);
                if self.spec.learner.credit != Credit::ValuePassing {
                    let value = self.unwind(id, trail, None, effects);
                    self.reply(id, value, effects);
                }
            }
        }
    }

    /// The id of the handoff that follows from having been activated by `id`.
    fn outgoing(&self, id: HandoffId) -> HandoffId {
        id.next(self.spec.id).expect("checked when it was received")
    }

    /// A choice made after the agent's own operation: its option consists of the handover alone.
    fn pending_of(
        &self,
        incoming: HandoffId,
        observation: Observation,
        chosen: Chosen,
        usage: Usage,
        prefix: (f64, f64),
        trail: Vec<LocalStep>,
    ) -> Pending {
        let Chosen { action, greedy } = chosen;
        let reward = match self.spec.choices[action.index()] {
            Choice::HandTo(_) => self.spec.handoff_reward,
            Choice::Finish => Return::ZERO,
        };
        let step = Step { observation, action, reward, tau: Tau::ONE, usage };
        Pending { incoming, step, greedy, prefix, trail, made: 0 }
    }

    /// A local operation was performed. Under value passing Q~ learns at once from the agent's own tables; under
    /// relay and trajectory credit it waits for the value.
    fn local(
        &mut self,
        id: HandoffId,
        local: LocalStep,
        next: Option<(Table, &Observation)>,
        trail: &mut Vec<LocalStep>,
        rng: &mut Rng,
        effects: &mut Effects,
    ) {
        if self.spec.learner.credit != Credit::ValuePassing {
            trail.push(local);
            return;
        }
        if local.outcome == Outcome::Failed {
            return self.miss(&local.step, effects);
        }
        // Q~ target: r + gamma^tau max_a' Q~(o', a') while the invocation goes on,
        //            r + gamma^tau max_j  Q(o+, j)  at its last operation,   r  if the task ended.
        let value = next.map(|(table, o)| self.learner.appraise(table, o).value);
        let target = self.learner.target(&local.step, value);
        self.settle(id, Table::Operations, &local.step, target, (None, None), effects);
        self.learner.rehearse(local.step, next, rng);
    }

    fn hand_over(&mut self, outgoing: HandoffId, clock: u64, pending: Pending, effects: &mut Effects) {
        // Two predecessors that give the same number lead to the same id: the older handoff can only be given up.
        if self.known.place(outgoing).is_some_and(|place| self.known[place].pending.is_some()) {
            self.expired(outgoing, effects);
        }
        if self.pending.len() >= self.spec.limits.pending_max
            && let Some(oldest) = self.oldest_pending()
        {
            self.expired(oldest, effects);
        }
        match self.spec.choices[pending.step.action.index()] {
            Choice::HandTo(to) => effects.push(Effect::Send(Handoff { id: outgoing, to, clock })),
            Choice::Finish => effects.push(Effect::Finish { handoff: outgoing }),
        }
        let slot = self.pending.insert(Pending { made: self.next_made, ..pending });
        let place = self.known.place_or_insert(outgoing);
        self.known[place].pending = Some(slot);
        self.made.push_back((self.next_made, slot));
        self.next_made += 1;
    }

    #[inline]
    fn take_pending(&mut self, place: Place, slot: Slot) -> Pending {
        self.known[place].pending = None;
        let taken = self.pending.remove(slot);
        if self.made.front() == Some(&(taken.made, slot)) {
            self.made.pop_front();
        } else if self.made.len() > 2 * self.pending.len() + 16 {
            let pending = &self.pending;
            self.made.retain(|(made, slot)| still_pending(pending, *made, *slot).is_some());
        }
        taken
    }

    fn oldest_pending(&mut self) -> Option<HandoffId> {
        while let Some((made, slot)) = self.made.front() {
            if let Some(pending) = still_pending(&self.pending, *made, *slot) {
                return Some(self.outgoing(pending.incoming));
            }
            self.made.pop_front();
        }
        None
    }

    /// Where the handoff of a value or an ending waits for it; one that does not is counted.
    fn settleable(&mut self, handoff: HandoffId) -> Option<(Place, Slot)> {
        let place = self.known.place(handoff);
        let found = place.and_then(|place| Some((place, self.known[place].pending?)));
        if found.is_none() {
            match place.is_some_and(|place| self.known[place].closed) {
                true => self.counters.late_values += 1,
                false => self.counters.unknown_values += 1,
            }
        }
        found
    }

    fn valued(&mut self, message: ValueMessage, effects: &mut Effects) {
        if message.revision > 0 {
            return self.refreshed(message, effects);
        }
        let Some((place, slot)) = self.settleable(message.handoff) else { return };
        let pending = self.take_pending(place, slot);
        self.record(effects, || Record::Valued { message });
        let bounds = self.spec.learner.bounds;
        let value = bounds.clamp(message.value);
        self.counters.clamped_values += u64::from(value != message.value);
        let step = &pending.step;
        let discount = self.spec.learner.discount.over(step.tau);
        let mut spread = None;
        let mut evaluated = value;
        if let (Some(c), Some(se)) = (self.spec.learner.extensions.standard_error, message.standard_error) {
            let se = se.get().clamp(0.0, bounds.max() - bounds.min());
            evaluated = self.bounded(value.get() - c * se);
            spread = Some(discount * se);
        }
        let mut target = self.learner.target(step, Some(evaluated));
        if self.spec.learner.extensions.local_model {
            target = self.modelled(step, discount, Some((&message, value)));
        }
        let kept = self.spec.learner.extensions.refresh.map(|_| step.clone());
        self.close(place, pending, target, value, spread, effects);
        if let Some(step) = kept {
            self.keep_used(message.handoff, step);
        }
    }

    fn finished(&mut self, handoff: HandoffId, reward: Return, effects: &mut Effects) {
        let Some((place, slot)) = self.settleable(handoff) else { return };
        let pending = self.take_pending(place, slot);
        self.record(effects, || Record::Finished { handoff, reward });
        self.conclude(place, pending, Some(reward), effects);
    }

    /// The task ended in this step: settle with y = R.
    fn conclude(
        &mut self,
        handoff: Place,
        mut pending: Pending,
        reward: Option<Return>,
        effects: &mut Effects,
    ) {
        let own = pending.step.reward.get();
        let total = match (self.spec.learner.credit, reward) {
            // An ending within the operation has no other return than the operation's.
            (_, None) => own,
            (Credit::Trajectory, Some(total)) => total.get(),
            (_, Some(terminal)) => own + terminal.get(),
        };
        pending.step.reward = Return::new(total).unwrap_or(pending.step.reward);
        let total = self.bounded(total);
        let target = match self.spec.learner.extensions.local_model {
            true => self.modelled(&pending.step, 0.0, None),
            false => self.learner.target(&pending.step, None),
        };
        self.close(handoff, pending, target, total, None, effects);
    }

    /// Settle a step of our own and, under relay and trajectory credit, answer the predecessor. `value` is what came
    /// from the successor (or the whole return of the task, under trajectory credit).
    fn close(
        &mut self,
        handoff: Place,
        pending: Pending,
        target: f64,
        value: Value,
        spread: Option<f64>,
        effects: &mut Effects,
    ) {
        let Pending { incoming, step, greedy, prefix, trail, .. } = pending;
        self.settle(self.known[handoff].handoff, Table::Successors, &step, target, (spread, None), effects);
        self.remember(handoff);
        match self.spec.learner.credit {
            Credit::ValuePassing => {}
            Credit::Trajectory => {
                let value = self.unwind(incoming, trail, Some(value.get()), effects);
                self.reply(incoming, value, effects);
            }
            Credit::Relay { lambda } => {
                // V = (1 - lambda) max Q + lambda y if the choice was greedy, else max Q      (Watkins cut)
                let own = self.learner.appraise(Table::Successors, &step.observation).value.get();
                let relayed = if greedy { (1.0 - lambda) * own + lambda * target } else { own };
                let relayed = prefix.0 + prefix.1 * relayed;
                let value = self.unwind(incoming, trail, Some(relayed), effects);
                self.reply(incoming, value, effects);
            }
        }
    }

    /// Settle local operations in reverse order and give the value of the first one's situation.
    fn unwind(
        &mut self,
        incoming: HandoffId,
        trail: Vec<LocalStep>,
        value: Option<f64>,
        effects: &mut Effects,
    ) -> Value {
        let (mut relayed, mut lead) = (value, None);
        for LocalStep { step, greedy, outcome } in trail.into_iter().rev() {
            if outcome == Outcome::Failed {
                self.miss(&step, effects);
                // A task that ended within it has earned nothing.
                relayed = relayed.or(Some(0.0));
                continue;
            }
            let target = self.learner.target(&step, relayed.map(|v| self.bounded(v)));
            self.settle(incoming, Table::Operations, &step, target, (None, lead), effects);
            lead = Some(step.observation.signature);
            relayed = Some(match self.spec.learner.credit {
                Credit::Relay { lambda } => {
                    let own = self.learner.appraise(Table::Operations, &step.observation).value.get();
                    if greedy { (1.0 - lambda) * own + lambda * target } else { own }
                }
                _ => target,
            });
        }
        self.bounded(relayed.unwrap_or(0.0))
    }

    fn settle(
        &mut self,
        handoff: HandoffId,
        table: Table,
        step: &Step,
        target: f64,
        (spread, lead): (Option<f64>, Option<Signature>),
        effects: &mut Effects,
    ) {
        // The local model has averaged already: its value is taken as it is.
        let settlement = match self.spec.learner.extensions.local_model && table == Table::Successors {
            true => self.learner.settle_fully(table, step, target),
            false => self.learner.settle_trusting(table, step, target, self.confidence),
        };
        self.counters.settled += 1;
        let signature = step.observation.signature;
        self.learner.close(table, signature, step.action);
        if let Some(spread) = spread {
            self.learner.spread(table, signature, step.action, spread, settlement.step);
        }
        if let (Some(lead), Some(graph)) = (lead, self.learner.graph_mut(table)) {
            graph.lead(signature, step.action, lead);
        }
        self.record(effects, || Record::Settled {
            handoff,
            table,
            signature,
            action: step.action,
            reward: step.reward,
            tau: step.tau,
            target,
            step: settlement.step,
            usage: step.usage,
            spread,
            lead,
        });
        if self.table_at_activation() == Some(table) {
            self.push(signature, effects);
        }
    }

    /// An operation that came to nothing.
    fn miss(&mut self, step: &Step, effects: &mut Effects) {
        let (signature, action, failures) = (step.observation.signature, step.action, step.usage.failures);
        self.learner.close(Table::Operations, signature, action);
        if let Some(graph) = self.learner.graph_mut(Table::Operations) {
            graph.miss(signature, action, failures);
        }
        self.record(effects, || Record::Missed { table: Table::Operations, signature, action, failures });
    }

    fn expired(&mut self, handoff: HandoffId, effects: &mut Effects) {
        let Some(place) = self.known.place(handoff) else { return };
        let pending = self.known[place].pending.map(|slot| self.take_pending(place, slot));
        let active = self.known[place].active.take().map(|slot| self.active.remove(slot));
        if pending.is_some() || active.is_some() {
            self.counters.expired += 1;
            self.record(effects, || Record::Expired { handoff });
            self.remember(place);
        }
        // Its choices will not be settled.
        self.each_choice(pending.as_ref(), active.as_ref(), Learner::close);
        // Under relay and trajectory credit nobody will answer the predecessor any more.
        if let Some(Pending { incoming, .. }) = pending
            && let Some(place) = self.known.place(incoming)
            && self.known.answer(place) == Some(None)
        {
            self.remember(place);
        }
    }

    /// Open or close the choices of a handoff that are not settled.
    fn each_choice(
        &mut self,
        pending: Option<&Pending>,
        active: Option<&Activation>,
        note: fn(&mut Learner, Table, Signature, ActionId),
    ) {
        if let Some(Pending { step, .. }) = pending {
            note(&mut self.learner, Table::Successors, step.observation.signature, step.action);
        }
        if let (Some(table), Some(Activation { observation, chosen: Some(chosen), .. })) =
            (self.table_at_activation(), active)
        {
            note(&mut self.learner, table, observation.signature, chosen.action);
        }
        let trails = [pending.map(|p| &p.trail), active.map(|a| &a.trail)];
        for LocalStep { step, .. } in trails.into_iter().flatten().flatten() {
            note(&mut self.learner, Table::Operations, step.observation.signature, step.action);
        }
    }

    fn bounded(&self, value: f64) -> Value {
        let bounds = self.spec.learner.bounds;
        // Sums of finite, bounded terms; the fallback keeps an overflow from spreading.
        Value::new(value).map_or(Value::new(bounds.min()).expect("bounds are finite"), |v| bounds.clamp(v))
    }

    fn reply(&mut self, incoming: HandoffId, value: Value, effects: &mut Effects) {
        let place = self.known.place_or_insert(incoming);
        self.answer(place, ValueMessage::new(incoming, value), effects);
        self.remember(place);
    }

    fn answer(&mut self, incoming: Place, message: ValueMessage, effects: &mut Effects) {
        effects.push(Effect::Value { to: message.handoff.from, message });
        self.known.receive(incoming, Some(message));
    }

    /// Note that a handoff has ended, and forget the oldest such notes beyond the limit.
    fn remember(&mut self, handoff: Place) {
        let (made, max) = (self.known[handoff].handoff.from == self.spec.id, self.spec.limits.remembered_max);
        self.known.end(handoff, made, max);
    }
}

/// The pending handoff with this number, if it is still that one: slots are used again.
fn still_pending(pending: &Slab<Pending>, made: u64, slot: Slot) -> Option<&Pending> {
    pending.get(slot).filter(|p| p.made == made)
}
