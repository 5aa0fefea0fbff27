//! The protocol: one participant, events in, effects out (paper, Algorithm 1, both regimes, asynchronous).
//!
//! A handoff comes in as [`Event::Received`]; the driver carries out the [`Effect`]s in order, after their records
//! are durable, and reports what happened as further events, until [`Effect::Send`] passes the task on and
//! [`Event::Valued`] brings the one scalar back.
//!
//! What is absent: no clock, no network, no artifact, no other agent's observation. A late, duplicated, reordered or
//! unknown value changes nothing; a value settles at most once; an expired handoff is dropped and counted, never
//! imputed as 0.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use minicbor::{Decode, Encode};

use crate::{
    ids::{ActionId, AgentId, Handle, HandoffId, OperationId},
    learner::{Appraisal, Credit, DecisionPoint, Learner, LearnerSpec, Regime, SpecError, Step},
    observation::{Observation, Signature},
    q::FeatureError,
    record::{Record, Table},
    rng::Rng,
    units::{Return, Tau, Usage, Value},
};

/// Control passing from one agent to another. The artifact goes beside it, by the driver's own means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Handoff {
    /// Its identity; names the sender.
    #[n(0)]
    pub id: HandoffId,
    /// Who is to act next.
    #[n(1)]
    pub to: AgentId,
    /// Time in the unit of the schedules, carried along by the artifact.
    #[n(2)]
    pub clock: u64,
}

/// What comes back over a boundary: an id and one number. The other fields belong to extensions and are absent
/// unless they were agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct ValueMessage {
    /// The handoff that is answered.
    #[n(0)]
    pub handoff: HandoffId,
    /// V.
    #[n(1)]
    pub value: Value,
    /// Standard error of V (extension).
    #[n(2)]
    pub standard_error: Option<Value>,
    /// The receiver's name for the situation (extension).
    #[n(3)]
    pub handle: Option<Handle>,
    /// How often the value has been sent again; 0 is the first time (extension).
    #[n(4)]
    pub revision: u32,
}

impl ValueMessage {
    /// The message of the paper.
    pub fn new(handoff: HandoffId, value: Value) -> Self {
        ValueMessage { handoff, value, standard_error: None, handle: None, revision: 0 }
    }
}

/// What follows an operation.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(flat)]
pub enum Next {
    /// The invocation goes on: an adaptable agent chooses another operation at this observation.
    #[n(0)]
    Operate(#[n(0)] Observation),
    /// The operation is over: the successor is chosen at this observation.
    #[n(1)]
    HandOver(#[n(0)] Observation),
    /// The operation is over and the successor was chosen before it.
    #[n(2)]
    Committed,
    /// The task ended within the operation.
    #[n(3)]
    Ended,
}

/// What a participant is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Control arrives; `observation` is what this agent sees of the artifact.
    Received {
        /// The handoff, addressed to this participant.
        handoff: Handoff,
        /// What the agent sees.
        observation: Observation,
    },
    /// The operation asked for by [`Effect::Perform`] has ended.
    Performed {
        /// The handoff that activated the agent.
        handoff: HandoffId,
        /// R: what accrued in it.
        reward: Return,
        /// How long it took.
        tau: Tau,
        /// What it used up.
        usage: Usage,
        /// What comes next.
        next: Next,
    },
    /// A successor's value came back for a handoff that this participant made.
    Valued(ValueMessage),
    /// The task ended in a handoff that this participant made: it chose to finish, or a deadline cut the task off.
    /// Under trajectory credit `reward` is the return of the whole task, else what the ending itself earned.
    Finished {
        /// The handoff made by this participant.
        handoff: HandoffId,
        /// The terminal reward.
        reward: Return,
    },
    /// Give up a handoff: one that was made and never answered, or one that was received and will not be worked on.
    Expired {
        /// The handoff.
        handoff: HandoffId,
    },
    /// A predecessor asks again for the value of a situation, by handle (extension).
    Asked {
        /// Who asks.
        from: AgentId,
        /// This participant's own name for the situation.
        handle: Handle,
    },
    /// A receiver answered such a question (extension).
    Answered {
        /// Who answers.
        from: AgentId,
        /// Its name for the situation.
        handle: Handle,
        /// Its value there now.
        value: Value,
    },
    /// Ask all receivers known to the local model for their current values (extension).
    Replan,
}

/// What a participant wants done, in order. Exhaustive on purpose: a driver must handle every one.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make this durable before anything that follows it leaves.
    Record(Record),
    /// Return the one scalar.
    Value {
        /// The predecessor.
        to: AgentId,
        /// What it is told.
        message: ValueMessage,
    },
    /// Do the work.
    Perform {
        /// The handoff that activated the agent.
        handoff: HandoffId,
        /// Which operation; always 0 for pre-configured agents.
        operation: OperationId,
        /// The successor already chosen, by an agent that decides before its operation.
        committed: Option<ActionId>,
    },
    /// Pass the task on.
    Send(Handoff),
    /// Conclude the task; the driver reports [`Event::Finished`] for the handoff once the reward is known.
    Finish {
        /// The concluding handoff.
        handoff: HandoffId,
    },
    /// Ask a receiver for its current value (extension).
    Ask {
        /// The receiver.
        to: AgentId,
        /// Its name for the situation.
        handle: Handle,
    },
    /// Answer such a question (extension).
    Answer {
        /// Who asked.
        to: AgentId,
        /// The situation.
        handle: Handle,
        /// Its value now.
        value: Value,
    },
}

/// The effects of one event, in order.
pub type Effects = Vec<Effect>;

/// What a column of the successor table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Hand the task to this agent.
    HandTo(AgentId),
    /// Conclude the task.
    Finish,
}

/// How much a participant keeps. Beyond these, the oldest is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Handoffs made and not yet answered.
    pub pending_max: usize,
    /// Handoffs received and still worked on; more are refused.
    pub active_max: usize,
    /// Handoffs remembered after their end, to answer duplicates and to tell them from unknown ones.
    pub remembered_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { pending_max: 100_000, active_max: 100_000, remembered_max: 10_000 }
    }
}

/// Whether records are made. A simulation that keeps no ledger omits them; nothing else changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// Every accepted event and everything that follows from it is recorded.
    #[default]
    Kept,
    /// No records.
    Omitted,
}

/// Everything a participant is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ParticipantSpec {
    /// Who it is.
    pub id: AgentId,
    /// The meaning of each column of its successor table.
    pub choices: Vec<Choice>,
    /// How it learns.
    pub learner: LearnerSpec,
    /// Reward of handing over, usually a negative cost; it belongs to the option of the choice that causes it.
    pub handoff_reward: Return,
    /// How much it keeps.
    pub limits: Limits,
    /// Whether it records.
    pub journal: Journal,
}

/// Why an event was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    /// Addressed to somebody else.
    #[error("handoff {handoff} is addressed to agent {to:?}, not to {me:?}")]
    NotAddressed {
        /// The handoff.
        handoff: HandoffId,
        /// Its addressee.
        to: AgentId,
        /// This participant.
        me: AgentId,
    },
    /// Too much is being worked on.
    #[error("{active} handoffs are being worked on, the most allowed; try again when some have ended")]
    Overloaded {
        /// How many.
        active: usize,
    },
    /// Not being worked on.
    #[error("handoff {handoff} is not being worked on")]
    NotActive {
        /// The handoff.
        handoff: HandoffId,
    },
    /// No choice, or one that does not exist.
    #[error("the observation admits {found} choices up to column {span}; the agent has {width}")]
    Choices {
        /// How many are admissible.
        found: usize,
        /// One more than the largest column.
        span: usize,
        /// How many columns the table has.
        width: usize,
    },
    /// A ledger could not hold the observation.
    #[error(
        "the observation of handoff {handoff} cannot be recorded: features must be finite and at most 2^20, \
         choices at most 2^16"
    )]
    Unrecordable {
        /// The handoff.
        handoff: HandoffId,
    },
    /// The features do not fit the estimator.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The driver reports something that this kind of agent does not do.
    #[error("{0}")]
    Regime(&'static str),
    /// The episode has too many handoffs.
    #[error("the task of handoff {handoff} has had 2^32 handoffs")]
    TooLong {
        /// The last handoff.
        handoff: HandoffId,
    },
}

/// What was dropped or refused; shown to operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handoffs received.
    pub received: u64,
    /// Steps learned from.
    pub settled: u64,
    /// Handoffs received twice or more.
    pub duplicate_handoffs: u64,
    /// Values for a handoff that was already settled or had expired.
    pub late_values: u64,
    /// Values for a handoff this participant never made, or has forgotten.
    pub unknown_values: u64,
    /// Values outside of the declared bounds, clamped.
    pub clamped_values: u64,
    /// Handoffs given up without learning from them.
    pub expired: u64,
    /// Events refused with a [`ProtocolError`].
    pub refused: u64,
}

/// A local operation of an adaptable agent, on its way to be settled.
#[derive(Clone, Debug)]
struct LocalStep {
    step: Step,
    greedy: bool,
}

/// A choice of a successor, taken and not yet settled.
#[derive(Clone, Debug)]
struct Chosen {
    observation: Observation,
    action: ActionId,
    greedy: bool,
}

/// A handoff being worked on.
#[derive(Clone, Debug)]
struct Activation {
    clock: u64,
    /// What it is at: the observation of the running operation.
    observation: Observation,
    /// Decided before: the choice already taken.
    committed: Option<Chosen>,
    /// Adaptable: the operation being performed.
    operation: Option<(ActionId, bool)>,
    /// Adaptable under relay: operations performed, to be settled in reverse.
    trail: Vec<LocalStep>,
}

/// A handoff made, waiting for its value.
#[derive(Clone, Debug)]
struct Pending {
    /// The handoff that activated the agent: whom relay and trajectory credit answer.
    incoming: HandoffId,
    step: Step,
    greedy: bool,
    /// Decided after: reward and discount of the agent's own operation before the choice.
    prefix: (f64, f64),
    trail: Vec<LocalStep>,
    /// Its place in [`Participant::made`].
    made: u64,
}

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
struct Extended {
    /// Own situations by handle.
    handles: BTreeMap<Handle, (Table, Observation)>,
    /// Local model: cells, receivers' last values, and which cells a receiver's value enters.
    cells: BTreeMap<(Signature, ActionId), Cell>,
    receivers: BTreeMap<(AgentId, Handle), Receiver>,
    /// Refresh, receiving side: by situation and predecessor, the last handoff, its observation and value sent.
    sent: BTreeMap<(Signature, AgentId), (Observation, ValueMessage)>,
    /// Refresh, sending side: steps already settled, by handoff, the newest per cell.
    used: BTreeMap<HandoffId, (Step, u32)>,
    used_by_cell: BTreeMap<(Signature, ActionId), HandoffId>,
}

/// One agent's side of the protocol: its learner, and the handoffs in flight.
#[derive(Clone, Debug)]
pub struct Participant {
    spec: ParticipantSpec,
    learner: Learner,
    active: BTreeMap<HandoffId, Activation>,
    pending: BTreeMap<HandoffId, Pending>,
    /// The keys of `pending`, oldest first, and how many there have been.
    made: BTreeMap<u64, HandoffId>,
    next_made: u64,
    /// Ended handoffs, received (with the value returned, once there is one) and made, oldest first in the queue.
    answered: BTreeMap<HandoffId, Option<ValueMessage>>,
    closed: BTreeSet<HandoffId>,
    remembered: VecDeque<HandoffId>,
    extended: Extended,
    counters: Counters,
}

impl Participant {
    /// A participant that has seen nothing yet; `rng` initialises its networks.
    pub fn new(spec: ParticipantSpec, rng: &mut Rng) -> Result<Self, SpecError> {
        if spec.choices.len() != spec.learner.successors as usize {
            return Err(SpecError::Combination("every column of the successor table needs a meaning"));
        }
        Ok(Participant {
            learner: Learner::new(spec.learner.clone(), rng)?,
            spec,
            active: BTreeMap::new(),
            pending: BTreeMap::new(),
            made: BTreeMap::new(),
            next_made: 0,
            answered: BTreeMap::new(),
            closed: BTreeSet::new(),
            remembered: VecDeque::new(),
            extended: Extended::default(),
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

    /// Handoffs made and not yet answered.
    pub fn pending(&self) -> impl Iterator<Item = HandoffId> + '_ {
        self.pending.keys().copied()
    }

    /// Handoffs received and still worked on.
    pub fn active(&self) -> impl Iterator<Item = HandoffId> + '_ {
        self.active.keys().copied()
    }

    /// Take in one event; the effects are appended to `effects`. On an error nothing has changed.
    pub fn apply(&mut self, event: Event, rng: &mut Rng, effects: &mut Effects) -> Result<(), ProtocolError> {
        let applied = match event {
            Event::Received { handoff, observation } => self.received(handoff, observation, rng, effects),
            Event::Performed { handoff, reward, tau, usage, next } => {
                self.performed(handoff, reward, tau, usage, next, rng, effects)
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
        if let Some(answer) = self.answered.get(&id) {
            self.counters.duplicate_handoffs += 1;
            if let Some(message) = *answer {
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
        self.answered.insert(id, None);
        let activation =
            Activation { clock, observation, committed: None, operation: None, trail: Vec::new() };
        match table {
            None => {
                effects.push(Effect::Perform { handoff: id, operation: OperationId(0), committed: None });
                self.active.insert(id, activation);
            }
            Some(table) => {
                // V is the greedy value, computed before acting, never that of the action then explored.
                let appraisal = self.learner.appraise(table, &activation.observation);
                if self.spec.learner.credit == Credit::ValuePassing {
                    let message = self.value_message(id, table, &activation.observation, appraisal, rng);
                    // It is remembered from the end of the activation on; until then `active` bounds it.
                    self.answer(id, message, effects);
                }
                match table {
                    Table::Successors => {
                        let chosen =
                            self.choose(id, table, activation.observation.clone(), clock, rng, effects);
                        let committed = Some(chosen.action);
                        effects.push(Effect::Perform { handoff: id, operation: OperationId(0), committed });
                        self.active.insert(id, Activation { committed: Some(chosen), ..activation });
                    }
                    Table::Operations => self.operate(id, activation, rng, effects),
                }
            }
        }
        Ok(())
    }

    /// Choose and start a local operation (adaptable agents).
    fn operate(&mut self, id: HandoffId, activation: Activation, rng: &mut Rng, effects: &mut Effects) {
        let observation = activation.observation.clone();
        let chosen = self.choose(id, Table::Operations, observation, activation.clock, rng, effects);
        let operation = OperationId(chosen.action.0);
        effects.push(Effect::Perform { handoff: id, operation, committed: None });
        self.active.insert(id, Activation { operation: Some((chosen.action, chosen.greedy)), ..activation });
    }

    fn choose(
        &self,
        handoff: HandoffId,
        table: Table,
        observation: Observation,
        clock: u64,
        rng: &mut Rng,
        effects: &mut Effects,
    ) -> Chosen {
        let decision = self.learner.decide(table, &observation, handoff.episode, clock, rng);
        let (signature, action, greedy) = (observation.signature, decision.action, decision.greedy);
        self.record(effects, || Record::Decided {
            handoff,
            table,
            signature,
            action,
            greedy,
            probabilities: decision.probabilities,
            position: decision.position,
        });
        Chosen { observation, action, greedy }
    }

    #[allow(clippy::too_many_arguments)] // the fields of one event
    fn performed(
        &mut self,
        id: HandoffId,
        reward: Return,
        tau: Tau,
        usage: Usage,
        next: Next,
        rng: &mut Rng,
        effects: &mut Effects,
    ) -> Result<(), ProtocolError> {
        // Everything is checked before anything changes.
        let activation = self.active.get(&id).ok_or(ProtocolError::NotActive { handoff: id })?;
        let outgoing = id.next(self.spec.id).expect("checked when it was received");
        if let Next::Operate(o) | Next::HandOver(o) = &next
            && !o.is_recordable()
        {
            return Err(ProtocolError::Unrecordable { handoff: id });
        }
        match (self.spec.learner.regime, &next) {
            (Regime::PreConfigured(DecisionPoint::Before), Next::Committed | Next::Ended) => {}
            (Regime::PreConfigured(DecisionPoint::After), Next::Ended) => {}
            (Regime::PreConfigured(DecisionPoint::After), Next::HandOver(o)) => {
                self.check(Table::Successors, o)?;
            }
            (Regime::Adaptable { .. }, Next::Ended) => {}
            (Regime::Adaptable { .. }, Next::HandOver(o)) => self.check(Table::Successors, o)?,
            (Regime::Adaptable { .. }, Next::Operate(o)) => self.check(Table::Operations, o)?,
            (Regime::PreConfigured(DecisionPoint::Before), _) => {
                return Err(ProtocolError::Regime(
                    "this agent chose its successor before its operation: nothing is to be decided after it",
                ));
            }
            (Regime::PreConfigured(DecisionPoint::After), _) => {
                return Err(ProtocolError::Regime(
                    "this agent has one operation and decides after it: an observation for that decision is missing",
                ));
            }
            (Regime::Adaptable { .. }, Next::Committed) => {
                return Err(ProtocolError::Regime(
                    "an adaptable agent decides after its operation: an observation for that decision is missing",
                ));
            }
        }
        let mut activation = match &next {
            Next::Operate(_) => activation.clone(),
            _ => self.active.remove(&id).expect("it was just looked up"),
        };
        if !self.active.contains_key(&id) && matches!(self.answered.get(&id), Some(Some(_))) {
            self.remember(id);
        }
        self.record(effects, || Record::Performed { handoff: id, reward, tau, usage, next: next.clone() });
        match (self.spec.learner.regime, next) {
            (Regime::PreConfigured(DecisionPoint::Before), next) => {
                let Chosen { observation, action, greedy } =
                    activation.committed.take().expect("chosen at activation");
                // The price of handing over belongs to the option of the choice that causes it.
                let price = match self.spec.choices[action.index()] {
                    Choice::HandTo(_) if next != Next::Ended => self.spec.handoff_reward.get(),
                    _ => 0.0,
                };
                let reward = Return::new(reward.get() + price).unwrap_or(reward);
                let step = Step { observation, action, reward, tau, usage };
                let pending =
                    Pending { incoming: id, step, greedy, prefix: (0.0, 1.0), trail: Vec::new(), made: 0 };
                match next {
                    Next::Ended => self.conclude(outgoing, pending, None, effects),
                    _ => self.hand_over(outgoing, activation.clock, pending, effects),
                }
            }
            (Regime::PreConfigured(DecisionPoint::After), next) => {
                // V = R_own + gamma^tau_own max_j Q(o+, j): the value at activation, with the agent's own fixed
                // operation already played out.
                let discount = self.spec.learner.discount.over(tau);
                let Next::HandOver(observation) = next else {
                    let value = self.bounded(reward.get());
                    self.reply(id, value, effects);
                    return Ok(());
                };
                if self.spec.learner.credit == Credit::ValuePassing {
                    let appraisal = self.learner.appraise(Table::Successors, &observation);
                    let value = self.bounded(reward.get() + discount * appraisal.value.get());
                    self.reply(id, value, effects);
                }
                let chosen = self.choose(id, Table::Successors, observation, activation.clock, rng, effects);
                let pending = self.pending_of(id, chosen, usage, (reward.get(), discount), Vec::new());
                self.hand_over(outgoing, activation.clock, pending, effects);
            }
            (Regime::Adaptable { .. }, next) => {
                let (action, greedy) = activation.operation.take().expect("an operation was being performed");
                let step = Step { observation: activation.observation.clone(), action, reward, tau, usage };
                let local = LocalStep { step, greedy };
                match next {
                    Next::Operate(o) => {
                        self.local(id, local, Some((Table::Operations, &o)), &mut activation.trail, effects);
                        activation.observation = o;
                        self.operate(id, activation, rng, effects);
                    }
                    Next::HandOver(o) => {
                        self.local(id, local, Some((Table::Successors, &o)), &mut activation.trail, effects);
                        let chosen = self.choose(id, Table::Successors, o, activation.clock, rng, effects);
                        let trail = activation.trail;
                        let pending = self.pending_of(id, chosen, Usage::default(), (0.0, 1.0), trail);
                        self.hand_over(outgoing, activation.clock, pending, effects);
                    }
                    Next::Committed | Next::Ended => {
                        self.local(id, local, None, &mut activation.trail, effects);
                        if self.spec.learner.credit != Credit::ValuePassing {
                            let value = self.unwind(id, activation.trail, None, effects);
                            self.reply(id, value, effects);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A choice made after the agent's own operation: its option consists of the handover alone.
    fn pending_of(
        &self,
        incoming: HandoffId,
        chosen: Chosen,
        usage: Usage,
        prefix: (f64, f64),
        trail: Vec<LocalStep>,
    ) -> Pending {
        let Chosen { observation, action, greedy } = chosen;
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
        effects: &mut Effects,
    ) {
        if self.spec.learner.credit != Credit::ValuePassing {
            trail.push(local);
            return;
        }
        // Q~ target: r + gamma^tau max_a' Q~(o', a') while the invocation goes on,
        //            r + gamma^tau max_j  Q(o+, j)  at its last operation,   r  if the task ended.
        let value = next.map(|(table, o)| self.learner.appraise(table, o).value);
        let target = self.learner.target(&local.step, value);
        self.settle(id, Table::Operations, &local.step, target, None, effects);
    }

    fn hand_over(&mut self, outgoing: HandoffId, clock: u64, pending: Pending, effects: &mut Effects) {
        // Two predecessors that give the same number lead to the same id: the older handoff can only be given up.
        if self.pending.contains_key(&outgoing) {
            self.expired(outgoing, effects);
        }
        if self.pending.len() >= self.spec.limits.pending_max
            && let Some((_, oldest)) = self.made.first_key_value()
        {
            self.expired(*oldest, effects);
        }
        match self.spec.choices[pending.step.action.index()] {
            Choice::HandTo(to) => effects.push(Effect::Send(Handoff { id: outgoing, to, clock })),
            Choice::Finish => effects.push(Effect::Finish { handoff: outgoing }),
        }
        self.made.insert(self.next_made, outgoing);
        self.pending.insert(outgoing, Pending { made: self.next_made, ..pending });
        self.next_made += 1;
    }

    fn take_pending(&mut self, handoff: HandoffId) -> Option<Pending> {
        let pending = self.pending.remove(&handoff)?;
        self.made.remove(&pending.made);
        Some(pending)
    }

    fn valued(&mut self, message: ValueMessage, effects: &mut Effects) {
        if message.revision > 0 {
            return self.refreshed(message, effects);
        }
        let Some(pending) = self.take_pending(message.handoff) else {
            match self.closed.contains(&message.handoff) {
                true => self.counters.late_values += 1,
                false => self.counters.unknown_values += 1,
            }
            return;
        };
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
        self.close(message.handoff, pending, Some(target), value, spread, effects);
        if let Some(step) = kept {
            self.keep_used(message.handoff, step);
        }
    }

    fn finished(&mut self, handoff: HandoffId, reward: Return, effects: &mut Effects) {
        let Some(pending) = self.take_pending(handoff) else {
            match self.closed.contains(&handoff) {
                true => self.counters.late_values += 1,
                false => self.counters.unknown_values += 1,
            }
            return;
        };
        self.record(effects, || Record::Finished { handoff, reward });
        self.conclude(handoff, pending, Some(reward), effects);
    }

    /// The task ended in this step: settle with y = R.
    fn conclude(
        &mut self,
        handoff: HandoffId,
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
        self.close(handoff, pending, Some(target), total, None, effects);
    }

    /// Settle a step of our own and, under relay and trajectory credit, answer the predecessor. `value` is what came
    /// from the successor (or the whole return of the task, under trajectory credit).
    fn close(
        &mut self,
        handoff: HandoffId,
        pending: Pending,
        target: Option<f64>,
        value: Value,
        spread: Option<f64>,
        effects: &mut Effects,
    ) {
        let Pending { incoming, step, greedy, prefix, trail, .. } = pending;
        let target = target.unwrap_or_else(|| self.learner.target(&step, Some(value)));
        self.settle(handoff, Table::Successors, &step, target, spread, effects);
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
        let mut relayed = value;
        for LocalStep { step, greedy } in trail.into_iter().rev() {
            let target = self.learner.target(&step, relayed.map(|v| self.bounded(v)));
            self.settle(incoming, Table::Operations, &step, target, None, effects);
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
        spread: Option<f64>,
        effects: &mut Effects,
    ) {
        // The local model has averaged already: its value is taken as it is.
        let settlement = match self.spec.learner.extensions.local_model && table == Table::Successors {
            true => self.learner.settle_fully(table, step, target),
            false => self.learner.settle(table, step, target),
        };
        self.counters.settled += 1;
        let signature = step.observation.signature;
        if let Some(spread) = spread {
            self.learner.spread(table, signature, step.action, spread, settlement.step);
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
        });
        if self.table_at_activation() == Some(table) {
            self.push(signature, effects);
        }
    }

    fn expired(&mut self, handoff: HandoffId, effects: &mut Effects) {
        let (pending, active) = (self.take_pending(handoff), self.active.remove(&handoff));
        if pending.is_some() || active.is_some() {
            self.counters.expired += 1;
            self.record(effects, || Record::Expired { handoff });
            self.remember(handoff);
        }
        // Under relay and trajectory credit nobody will answer the predecessor any more.
        if let Some(Pending { incoming, .. }) = pending
            && self.answered.get(&incoming) == Some(&None)
        {
            self.remember(incoming);
        }
    }

    fn bounded(&self, value: f64) -> Value {
        let bounds = self.spec.learner.bounds;
        // Sums of finite, bounded terms; the fallback keeps an overflow from spreading.
        Value::new(value).map_or(Value::new(bounds.min()).expect("bounds are finite"), |v| bounds.clamp(v))
    }

    fn reply(&mut self, incoming: HandoffId, value: Value, effects: &mut Effects) {
        self.answer(incoming, ValueMessage::new(incoming, value), effects);
        self.remember(incoming);
    }

    fn answer(&mut self, incoming: HandoffId, message: ValueMessage, effects: &mut Effects) {
        effects.push(Effect::Value { to: incoming.from, message });
        self.answered.insert(incoming, Some(message));
    }

    /// Note that a handoff has ended, and forget the oldest such notes beyond the limit.
    fn remember(&mut self, handoff: HandoffId) {
        if handoff.from == self.spec.id && self.closed.insert(handoff) || self.answered.contains_key(&handoff)
        {
            self.remembered.push_back(handoff);
        }
        while self.remembered.len() > self.spec.limits.remembered_max
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.closed.remove(&oldest);
            if !self.active.contains_key(&oldest) {
                self.answered.remove(&oldest);
            }
        }
    }

    // ---- Extensions: beyond the paper's one scalar per handoff, off by default -------------------------------------

    fn value_message(
        &mut self,
        id: HandoffId,
        table: Table,
        o: &Observation,
        appraisal: Appraisal,
        rng: &Rng,
    ) -> ValueMessage {
        let mut message = ValueMessage::new(id, appraisal.value);
        let extensions = self.spec.learner.extensions;
        if extensions.standard_error.is_some() {
            message.standard_error = Value::new(appraisal.standard_error).ok();
        }
        if extensions.local_model {
            // Unlinkable to the signature without this agent's stream.
            let handle = Handle(rng.fork([o.signature.0, 0, 0]).bits());
            bounded_insert(
                &mut self.extended.handles,
                handle,
                (table, o.clone()),
                self.spec.limits.remembered_max,
            );
            message.handle = Some(handle);
        }
        if extensions.refresh.is_some() {
            let key = (o.signature, id.from);
            let max = self.spec.limits.remembered_max;
            bounded_insert(&mut self.extended.sent, key, (o.clone(), message), max);
        }
        message
    }

    /// Refresh, receiving side: values that moved by more than theta are sent again.
    fn push(&mut self, signature: Signature, effects: &mut Effects) {
        let (Some(theta), Some(table)) = (self.spec.learner.extensions.refresh, self.table_at_activation())
        else {
            return;
        };
        let situations = (signature, AgentId(0))..=(signature, AgentId(u32::MAX));
        for ((_, to), (observation, last)) in self.extended.sent.range_mut(situations) {
            let value = self.learner.appraise(table, observation).value;
            if (value.get() - last.value.get()).abs() > theta {
                last.value = value;
                last.revision += 1;
                effects.push(Effect::Value { to: *to, message: *last });
            }
        }
    }

    fn keep_used(&mut self, handoff: HandoffId, step: Step) {
        let cell = (step.observation.signature, step.action);
        let Extended { used, used_by_cell, .. } = &mut self.extended;
        if let Some(older) = used_by_cell.insert(cell, handoff) {
            used.remove(&older);
        }
        used.insert(handoff, (step, 0));
        if used.len() > self.spec.limits.remembered_max
            && let Some((_, (step, _))) = used.pop_first()
        {
            used_by_cell.remove(&(step.observation.signature, step.action));
        }
    }

    /// Refresh, sending side: move the newest step of a cell to the new target without counting a visit.
    fn refreshed(&mut self, message: ValueMessage, effects: &mut Effects) {
        let fresh = self.extended.used.get_mut(&message.handoff).filter(|(_, last)| message.revision > *last);
        let (Some((step, last)), Some(_)) = (fresh, self.spec.learner.extensions.refresh) else {
            self.counters.late_values += 1;
            return;
        };
        *last = message.revision;
        let step = step.clone();
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
    fn modelled(&mut self, step: &Step, discount: f64, received: Option<(&ValueMessage, Value)>) -> f64 {
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
            let full = self.extended.receivers.len() >= self.spec.limits.remembered_max;
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

    fn replan(&mut self, effects: &mut Effects) {
        if !self.spec.learner.extensions.local_model {
            return;
        }
        self.record(effects, || Record::Replanned);
        for (to, handle) in self.extended.receivers.keys() {
            effects.push(Effect::Ask { to: *to, handle: *handle });
        }
    }

    fn asked(&mut self, from: AgentId, handle: Handle, effects: &mut Effects) {
        let Some((table, observation)) = self.extended.handles.get(&handle) else {
            self.counters.unknown_values += 1;
            return;
        };
        let value = self.learner.appraise(*table, observation).value;
        effects.push(Effect::Answer { to: from, handle, value });
    }

    fn answered(&mut self, from: AgentId, handle: Handle, value: Value, effects: &mut Effects) {
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
