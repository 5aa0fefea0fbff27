//! relevo-core decides and learns: who should act next, from what came of it before.
//!
//! It is pure. Events go in, effects come out; randomness, time and identity are arguments; there is no IO, no clock, no
//! thread, and no artifact. The same code runs in a simulation, in production, and when an auditor replays a ledger.
//!
//! In reading order: [`ids`] and [`units`] say who and how much; an [`observation`] is what one agent sees; [`q`],
//! [`graph`] and [`pools`] hold what it knows; a [`policy`] turns that into a choice with probabilities; the [`learner`] moves the estimates
//! by [`step`] sizes; the [`protocol`] ties one agent's handoffs together; [`record`]s remember, [`replay`] repeats,
//! [`policy_file`] hands on, [`warm`] takes over, a [`snapshot`] goes on where it was; [`rng`] is the only source of chance, [`contract`] what every part can be tested by.
//!
//! # One handoff
//!
//! An agent is handed a task, chooses whom to hand it to, and learns from the one number that comes back
//! (paper, Algorithm 1 and equations 4 and 5):
//!
//! ```
//! use relevo_core::{
//!     Rng,
//!     ids::{ActionId, AgentId, EpisodeId, HandoffId},
//!     learner::{DecisionPoint, LearnerSpec, Regime},
//!     observation::{ActionSet, Observation, Signature},
//!     protocol::{Choice, Effect, Event, Handoff, Journal, Limits, Next, Participant, ParticipantSpec, ValueMessage},
//!     record::Table,
//!     units::{Bounds, Discount, Return, Tau, Usage, Value},
//! };
//!
//! // Agent 0 may hand to agent 1 or finish; it decides before its own operation. gamma = .9, values in [-1, 1].
//! let learner = LearnerSpec::tabular(
//!     2,
//!     Regime::PreConfigured(DecisionPoint::Before),
//!     Discount::new(0.9)?,
//!     Bounds::new(-1.0, 1.0)?,
//! );
//! let spec = ParticipantSpec {
//!     id: AgentId(0),
//!     choices: vec![Choice::HandTo(AgentId(1)), Choice::Finish],
//!     learner,
//!     handoff_reward: Return::ZERO,
//!     limits: Limits::default(),
//!     journal: Journal::Kept,
//! };
//! let mut rng = Rng::stream(7, "policy/agent-0");
//! let mut agent = Participant::new(spec, &mut Rng::stream(7, "initial/agent-0"))?;
//! let mut effects = vec![];
//!
//! // Control arrives. The agent returns its own value to the predecessor, chooses, and asks for its work to be done.
//! let id = HandoffId::opening(EpisodeId(1));
//! let observation = Observation::of(Signature::of_name("kind=gz"), ActionSet::all(2));
//! let handoff = Handoff { id, to: AgentId(0), clock: 0 };
//! agent.apply(Event::Received { handoff, observation: observation.clone() }, &mut rng, &mut effects)?;
//! assert!(effects.iter().any(|e| matches!(e, Effect::Value { to: AgentId::ORIGIN, .. })));
//! assert!(matches!(effects.last(), Some(Effect::Perform { .. })));
//!
//! // The work took two steps and cost .1; now the task goes to the successor.
//! effects.clear();
//! let (reward, tau) = (Return::new(-0.1)?, Tau::new(2).unwrap());
//! let next = Next::Committed;
//! agent.apply(Event::Performed { handoff: id, reward, tau, usage: Usage::default(), next }, &mut rng, &mut effects)?;
//! let Some(Effect::Send(sent)) = effects.last().cloned() else { panic!("the untried first choice is to hand over") };
//!
//! // The successor's value comes back: y = R + gamma^tau V = -.1 + .81 * .5. The first step is 1, so Q is y.
//! agent.apply(Event::Valued(ValueMessage::new(sent.id, Value::new(0.5)?)), &mut rng, &mut effects)?;
//! let q = agent.learner().values(Table::Successors, &observation)[ActionId(0).index()];
//! assert!((q - 0.305).abs() < 1e-12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod contract;
mod experience;
pub mod graph;
pub mod ids;
mod largest;
pub mod learner;
pub mod observation;
pub mod policy;
pub mod policy_file;
pub mod pools;
pub mod protocol;
pub mod q;
pub mod record;
pub mod replay;
pub mod rng;
pub mod snapshot;
pub mod step;
pub mod units;
pub mod warm;

pub use rng::Rng;
